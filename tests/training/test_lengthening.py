"""A finished run goes on with more steps."""

import json
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.concepts import read_manifest
from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.training import checkpoint_path, log_path, loop, train
from orthoplex.training.continuation import Continuation
from orthoplex.training.stages import stages
from tests.training.test_loop import assert_same_concept, last_of

AFTER_ERASURE = {
    "layers": "cross-attention-kv",
    "erasure": 5.0,
    "erasure_form": "closed-form",
    "steps": 10,
    "prior_pictures": 0,
}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "anna.safetensors"


def test_without_a_schedule_a_lengthened_run_is_the_longer_one(base, dataset, config, output, tmp_path):
    longer = replace(config, schedule="constant", steps=5, erasure=0.0)
    last_of(train(base, dataset, replace(longer, steps=3), output=output))
    steps = [record.step for record in train(base, dataset, longer, output=output, resume=True)]
    assert steps == [4, 5]
    last_of(train(base, dataset, longer, output=tmp_path / "whole.safetensors"))
    ours, theirs = load_file(output), load_file(tmp_path / "whole.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_manifest(output).tokens == read_manifest(tmp_path / "whole.safetensors").tokens
    assert [json.loads(line)["step"] for line in log_path(output).read_text().splitlines()] == [0, 1, 2, 3, 4, 5]
    assert read_manifest(output).lengthened_from == (3,)
    assert read_manifest(tmp_path / "whole.safetensors").lengthened_from == ()


def test_a_lengthened_run_may_be_interrupted_and_lengthened_again(base, dataset, config, output, tmp_path):
    short, longer = replace(config, **AFTER_ERASURE), replace(config, **{**AFTER_ERASURE, "steps": 14})
    for path in (output, tmp_path / "whole.safetensors"):
        last_of(train(base, dataset, short, output=path))
    with closing(train(base, dataset, longer, output=output, resume=True)) as records:
        list(islice(records, 2))
    last_of(train(base, dataset, longer, output=output, resume=True))
    last_of(train(base, dataset, longer, output=tmp_path / "whole.safetensors", resume=True))
    assert_same_concept(output, tmp_path / "whole.safetensors")
    last_of(train(base, dataset, replace(longer, steps=15), output=output, resume=True))
    manifest = read_manifest(output)
    assert manifest.lengthened_from == (10, 14)
    assert (manifest.training["steps"], manifest.training["erasure_steps"]) == (15, 8)


@pytest.mark.parametrize(
    ("done", "changes", "boundaries"),
    [
        (5, {}, [0, 14, 20]),  # erasure has not begun: it takes its usual share of the longer run
        (8, {}, [0, 7, 20]),
        (10, {}, [0, 7, 20]),
        (10, {"erasure_steps": 4}, [0, 6, 20]),
        (10, {"method": "dual", "num_vectors": 2}, [0, 3, 7, 20]),
        (10, {"method": "dual", "num_vectors": 2, "token_steps": 2}, [0, 2, 7, 20]),
        (2, {"method": "dual", "num_vectors": 2}, [0, 6, 14, 20]),
        (10, {"layers": "none", "erasure": 0.0}, [0, 20]),
        (10, {"erasure_steps": 0}, [0, 20]),
    ],
)
def test_a_stage_that_has_begun_goes_on(base, dataset, config, output, done, changes, boundaries):
    short = replace(config, **{**AFTER_ERASURE, **changes})
    with closing(train(base, dataset, short, output=output)) as records:
        list(islice(records, done + 1))
    continued = Continuation.of(replace(short, steps=20), output)
    assert continued.lengthened_from == (10,)
    assert [stage.start for stage in stages(continued.config)] == boundaries[:-1]
    assert stages(continued.config)[-1].stop == boundaries[-1]


def test_erasure_steps_that_cannot_be_are_mentioned(base, dataset, config, output, caplog):
    short = replace(config, **AFTER_ERASURE)
    last_of(train(base, dataset, short, output=output))
    Continuation.of(replace(short, steps=20, erasure_steps=2), output)
    assert caplog.messages == ["erasure_steps is 2, and the run takes 13: its stages have begun"]


def test_a_finished_run_is_not_resumed_with_nothing_to_do(base, dataset, config, output):
    config = replace(config, steps=1)
    last_of(train(base, dataset, config, output=output))
    with pytest.raises(ConfigurationError, match=r"is finished, at step 1 of 1; more steps \(--steps\) lengthen it"):
        train(base, dataset, config, output=output, resume=True)
    last_of(train(base, dataset, config, output=output))  # a finished run is no unfinished work that could be lost
    output.unlink()  # the steps are there, the file is made again
    assert last_of(train(base, dataset, config, output=output, resume=True)).output == output


def test_steps_whose_file_was_not_written_are_not_lost(base, dataset, config, output, monkeypatch):
    def failing(*arguments):
        raise OutputError("no space left")

    config = replace(config, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_concept", failing)
        with pytest.raises(OutputError, match="step 1 is kept in"):
            list(train(base, dataset, config, output=output))
    with pytest.raises(ConfigurationError, match="holds step 1 of an interrupted training; resume"):
        train(base, dataset, config, output=output)
    output.write_bytes(b"an older one")  # which --overwrite was to replace
    assert last_of(train(base, dataset, config, output=output, resume=True)).output == output


def test_without_room_for_a_checkpoint_the_concept_is_written(base, dataset, config, output, monkeypatch, caplog):
    def failing(*arguments, **options):
        raise OutputError("no space left")

    monkeypatch.setattr(loop, "save_checkpoint", failing)
    assert last_of(train(base, dataset, replace(config, steps=1), output=output)).output == output
    assert caplog.messages == ["step 1 is not kept: no space left"] * 2


def test_changed_pictures_are_told_in_words(base, dataset, config, output):
    last_of(train(base, dataset, replace(config, steps=1), output=output))
    other = replace(dataset, dataset_hash=dataset.dataset_hash[::-1])
    with pytest.raises(
        ConfigurationError, match="was made with other pictures, captions or words; they must be as they"
    ):
        next(train(base, other, replace(config, steps=2), output=output, resume=True))


def test_fewer_steps_or_other_options_are_refused(base, dataset, config, output):
    last_of(train(base, dataset, replace(config, steps=2), output=output))
    with pytest.raises(
        ConfigurationError, match="steps is 1, and .* was begun with 2, of which 2 are done; .* 2 or more"
    ):
        train(base, dataset, replace(config, steps=1), output=output, resume=True)
    with pytest.raises(ConfigurationError, match="resume and overwrite are both given"):
        train(base, dataset, config, output=output, resume=True, overwrite=True)
    with pytest.raises(ConfigurationError, match="made with seed 0, this run has 1; both must agree, or overwrite"):
        next(train(base, dataset, replace(config, steps=3, seed=1), output=output, resume=True))


def test_a_checkpoint_need_not_stay(base, dataset, config, output):
    last_of(train(base, dataset, replace(config, steps=1), output=output, keep_checkpoint=False))
    assert output.is_file() and not checkpoint_path(output).exists()
