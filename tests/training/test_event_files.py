"""Event files for TensorBoard hold the numbers and the pictures of every step once, and only where asked for."""

import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest

from orthoplex.concepts import load_concept
from orthoplex.errors import ConfigurationError, MissingExtraError, OutputError
from orthoplex.training import TrainingConfig, event_files, train
from orthoplex.training.event_files import events_folder


def events_of(output):
    """Tag -> its events, as TensorBoard reads the folder."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = accumulators.EventAccumulator(str(events_folder(output)), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {tag: [(item.step, item.value) for item in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: [(item.step, item.width) for item in accumulator.Images(tag)] for tag in tags["images"]}


@pytest.fixture
def short(config):
    return replace(config, steps=3, erasure=0.0, sample_every=2, report_to="tensorboard")


def test_every_step_is_an_event_and_every_sample_a_picture(base, dataset, short, tmp_path):
    output = tmp_path / "anna.safetensors"
    *records, last = train(base, dataset, short, output=output)
    scalars, images = events_of(output)
    losses = [(record.step, pytest.approx(record.loss)) for record in (*records[1:], last)]
    assert scalars["training/loss"] == losses
    assert [step for step, _ in scalars["training/learning_rate"]] == [1, 2, 3]
    assert "training/erasure" not in scalars
    assert images == {"samples/0": [(0, 32), (2, 32), (3, 32)]}


def test_nothing_is_written_where_it_is_not_asked_for_and_the_concept_is_the_same(base, dataset, short, tmp_path):
    for name, report_to in (("a", "none"), ("b", "tensorboard")):
        config = replace(short, steps=1, sample_every=0, report_to=report_to)
        list(train(base, dataset, config, output=tmp_path / f"{name}.safetensors"))
    assert not (tmp_path / "a.tensorboard").exists()
    first, second = (load_concept(tmp_path / f"{name}.safetensors") for name in "ab")
    assert first.content_hash == second.content_hash
    assert first.manifest.training == second.manifest.training


@pytest.mark.parametrize("before", ["tensorboard", "none"])
def test_a_resumed_training_shows_every_step_once(base, dataset, short, tmp_path, before):
    output = tmp_path / "anna.safetensors"
    with closing(train(base, dataset, replace(short, report_to=before), output=output)) as records:
        list(islice(records, 3))
    list(train(base, dataset, short, output=output, resume=True))
    scalars, images = events_of(output)
    assert [step for step, _ in scalars["training/loss"]] == [1, 2, 3]
    assert [step for step, _ in images["samples/0"]] == [0, 2, 3]
    assert len(list(events_folder(output).iterdir())) == 1


def test_a_new_training_leaves_foreign_files_alone(base, dataset, short, tmp_path):
    output = tmp_path / "anna.safetensors"
    folder = events_folder(output)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for _ in range(2):
        list(train(base, dataset, replace(short, steps=1, sample_every=0), output=output, overwrite=True))
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == ["events", "notes"]


def test_the_package_is_named_before_anything_is_computed(base, dataset, short, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="report_to=tensorboard needs the package tensorboard"):
        train(base, dataset, short, output=tmp_path / "anna.safetensors")


def test_a_file_in_the_place_of_the_folder_is_refused(base, dataset, short, tmp_path):
    output = tmp_path / "anna.safetensors"
    events_folder(output).write_text("a file")
    with pytest.raises(OutputError, match=r"anna.tensorboard is a file; allowed is a folder for event files"):
        train(base, dataset, short, output=output)


def test_a_full_disk_leaves_a_checkpoint(base, dataset, short, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    output = tmp_path / "anna.safetensors"
    monkeypatch.setattr(event_files, "_write", full)
    records = train(base, dataset, replace(short, sample_every=0), output=output)
    with pytest.raises(OutputError, match=r"event files in .*anna.tensorboard cannot be written: no space left"):
        list(records)
    assert (tmp_path / "anna.checkpoint.safetensors").is_file()


@pytest.mark.parametrize("name", ["report_to", "log_with"])
@pytest.mark.parametrize("value", ["wandb", "comet_ml", "all"])
def test_other_reports_are_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=rf"report_to is '{value}'; allowed are 'none', 'tensorboard'"):
        TrainingConfig.from_mapping({name: value})
