import errno
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest

from orthoplex.errors import CapacityError, ConfigurationError, DatasetError, OutputError
from orthoplex.training import ConceptDataset, checkpoint_path, log_path, loop, samples_folder, train
from orthoplex.training.checkpoint import checkpoint_step


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "anna.safetensors"


def interrupt(base, dataset, config, output, *, after):
    with closing(train(base, dataset, config, output=output)) as records:
        list(islice(records, after + 1))


def test_a_checkpoint_is_not_thrown_away(base, dataset, config, output):
    interrupt(base, dataset, config, output, after=2)
    kept = checkpoint_path(output).read_bytes()
    with pytest.raises(
        ConfigurationError, match=r"holds step 2 of .* resume .* continues it, overwrite .* begins anew"
    ):
        train(base, dataset, config, output=output)
    assert checkpoint_path(output).read_bytes() == kept
    with closing(train(base, dataset, config, output=output, overwrite=True)) as records:
        assert next(records).step == 0
    assert checkpoint_step(checkpoint_path(output)) == 0


@pytest.mark.parametrize("name", ["save_concept", "append_log"])
def test_a_full_disk_keeps_a_checkpoint(base, dataset, config, output, monkeypatch, name):
    def failing(*arguments):
        if name == "save_concept":
            raise OutputError(f"{output} cannot be written: no space left")
        if arguments[1].step == 6:
            raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(loop, name, failing)
        with pytest.raises(OutputError, match=r"no space left.*; step 6 is kept in .*checkpoint.safetensors, resume"):
            list(train(base, dataset, config, output=output))
    *_, last = train(base, dataset, config, output=output, resume=True)
    assert last.output == output and output.is_file() and checkpoint_step(checkpoint_path(output)) == 6


def test_whatever_fails_in_a_step_keeps_the_steps_before_it(base, dataset, config, output, monkeypatch, caplog):
    """Tokens of somebody else, an overflow, no memory: the error is the caller's, the checkpoint is there."""
    records = train(base, dataset, config, output=output)
    assert [record.step for record in islice(records, 3)] == [0, 1, 2]
    with monkeypatch.context() as patch:

        def failing(*arguments):
            raise MemoryError

        patch.setattr(loop, "_denoising_loss", failing)
        with pytest.raises(MemoryError):
            next(records)
    assert checkpoint_step(checkpoint_path(output)) == 2 and base.tokens == ()
    assert "training of anna ends by an error; step 2 is kept in" in caplog.text
    with closing(train(base, dataset, config, output=output, resume=True)) as again:
        assert next(again).step == 3


def test_where_nothing_can_be_written_the_error_says_so(base, dataset, config, output, monkeypatch):
    def failing(*arguments, **options):
        raise OutputError("no space left")

    monkeypatch.setattr(loop, "save_concept", failing)
    monkeypatch.setattr(loop, "save_checkpoint", failing)
    with pytest.raises(OutputError, match="no space left; nor could step 6 be kept: no space left"):
        list(train(base, dataset, config, output=output))


@pytest.mark.parametrize("place", ["output", "checkpoint", "log", "samples", "parent"])
def test_outputs_that_cannot_be_written_are_refused_at_once(base, dataset, config, output, place):
    if place == "parent":
        output.parent.write_text("a file")
    elif place == "samples":
        output.parent.mkdir()
        samples_folder(output).write_text("a file")
    else:
        {"output": output, "checkpoint": checkpoint_path(output), "log": log_path(output)}[place].mkdir(parents=True)
    with pytest.raises(OutputError, match="is a f|cannot be written"):
        train(base, dataset, config, output=output)


def test_a_name_too_long_is_refused_at_once(base, dataset, config, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        train(base, dataset, config, output=tmp_path / f"{'a' * 230}.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_fit_leave_nothing_behind(base, dataset, config, output):
    with pytest.raises(CapacityError, match="slot"):
        train(base, dataset, replace(config, slot=99), output=output)
    assert not output.parent.exists()


@pytest.mark.parametrize("changes", [{"sample_every": 1, "num_inference_steps": 1001}, {"prior_inference_steps": 5000}])
def test_more_denoising_steps_than_timesteps_are_refused(base, dataset, config, output, changes):
    with pytest.raises(ConfigurationError, match=r"_inference_steps is \d+; allowed are 1 to 1000, the timesteps"):
        train(base, dataset, replace(config, **changes), output=output)


def test_steps_that_are_never_taken_are_allowed(base, dataset, config, output):
    config = replace(config, steps=1, sample_every=0, num_inference_steps=1001, erasure=0.0, prior_inference_steps=5000)
    *_, last = train(base, dataset, config, output=output)
    assert last.output == output


def captioned(folder, caption):
    (folder / "00.txt").write_text(caption)
    return ConceptDataset.from_folder(folder, resolution=32, token="<anna>", class_word="person", kind="person")


def test_a_caption_that_hides_the_concept_is_refused(base, config, folder, output):
    dataset = captioned(folder, "cat " * 29 + "TOKEN")  # the second vector of <anna> is one too many
    with pytest.raises(DatasetError, match="caption of 00.png has 32 tokens, and <anna> stands behind the 30 that"):
        list(train(base, dataset, config, output=output))
    assert not log_path(output).exists() and not checkpoint_path(output).exists()


def test_a_caption_that_is_cut_off_behind_the_concept_is_trained_and_logged(base, config, folder, output, caplog):
    dataset = captioned(folder, "TOKEN " + "cat " * 40)
    *_, last = train(base, dataset, replace(config, steps=1), output=output)
    assert last.output == output
    assert "and the base reads 30; their ends are not seen" in caplog.text
