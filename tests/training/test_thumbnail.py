"""What a concept file shows of its training pictures, and of whoever trained it."""

from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from orthoplex.concepts import decode_thumbnail, encode_thumbnail, load_concept, read_manifest
from orthoplex.training import TrainingConfig, checkpoint_path, samples_folder, sampling, train
from orthoplex.training.run import Run

QUICK = {"steps": 1, "thumbnail": "auto", "erasure": 0.0, "num_inference_steps": 1}


@pytest.fixture
def made(base, dataset, config, tmp_path):
    """Train with other options and another kind; returns the file."""

    def call(name="anna", kind="person", **options):
        output = tmp_path / f"{name}.safetensors"
        list(train(base, replace(dataset, kind=kind), replace(config, **{**QUICK, **options}), output=output))
        return output

    return call


@pytest.mark.parametrize(
    ("kind", "option", "words"),
    [
        ("person", "auto", "a small generated picture"),
        ("subject", "auto", "a small training picture"),
        ("style", "generated", "a small generated picture"),
        ("person", "none", "no picture"),
    ],
)
def test_the_thumbnail_is_what_was_asked_for(made, dataset, kind, option, words):
    manifest = read_manifest(made(kind=kind, thumbnail=option))
    assert manifest.picture == words
    assert (manifest.thumbnail == encode_thumbnail(dataset.image(0))) == (words == "a small training picture")
    assert bool(manifest.thumbnail) == (words != "no picture")


def test_the_thumbnail_changes_nothing_else(made):
    concepts = [load_concept(made(option, thumbnail=option)) for option in ("photo", "generated")]
    assert len({concept.content_hash for concept in concepts}) == 1
    other = {"thumbnail": "", "created": "", "training": {}}
    assert len({repr(replace(concept.manifest, **other)) for concept in concepts}) == 1


def test_the_generated_one_is_a_picture_of_the_finished_concept(made, base, config):
    concept = load_concept(made())
    with base.folded(concept):
        pictures = sampling.make_pictures(
            base, replace(config, **QUICK), ["a photo of <anna> person"], seed=config.seed
        )
    assert concept.manifest.thumbnail == encode_thumbnail(pictures.images()[0])
    assert decode_thumbnail(concept.manifest.thumbnail).size == (32, 32)


def test_a_resumed_training_gives_the_file_of_an_unbroken_one(base, dataset, config, tmp_path, monkeypatch):
    config, files = replace(config, **{**QUICK, "steps": 3}), []
    for name, breaks in (("whole", False), ("broken", True)):
        output = tmp_path / name / "anna.safetensors"
        if breaks:
            with closing(train(base, dataset, replace(config, thumbnail="none"), output=output)) as records:
                list(islice(records, 3))
        list(train(base, dataset, config, output=output, resume=True))
        manifest = read_manifest(output)
        files.append(output.read_bytes().replace(manifest.created.encode(), b""))
    assert files[0] == files[1]


def test_checkpoints_do_not_know_it(base, dataset, config):
    identities = [
        Run.of(base, dataset, replace(config, thumbnail=option)).identity(base, dataset, ())
        for option in ("auto", "none")
    ]
    assert identities[0] == identities[1] and "thumbnail" not in identities[0]["config"]


def test_a_concept_that_pictures_nothing_finite_has_none(made, monkeypatch, caplog):
    original = sampling.make_pictures

    def failing(*arguments, **options):
        pictures = original(*arguments, **options)
        return replace(pictures, pixels=pictures.pixels * np.float32(np.nan))

    monkeypatch.setattr(sampling, "make_pictures", failing)
    assert read_manifest(made()).picture == "no picture"
    assert "concept anna has no thumbnail: its picture holds numbers that are not finite" in caplog.text


def test_files_say_nothing_of_the_machine(made, tmp_path):
    data = made(sample_prompts=("{trigger} of Elm Street",), sample_every=0).read_bytes()
    for text in (str(tmp_path), "pictures", "00.png", "Elm Street"):
        assert text.encode() not in data.replace(b"num_pictures", b"").replace(b"prior_pictures", b"")


def test_comments_of_a_picture_stay_with_it():
    picture = Image.new("RGB", (40, 40), (200, 10, 10))
    picture.info["comment"] = b"Anna, 12 Elm Street"
    assert decode_thumbnail(encode_thumbnail(picture)).info.get("comment") is None


def test_a_new_run_removes_the_pictures_of_the_one_before(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    folder = samples_folder(output)
    config = replace(config, steps=3, sample_every=1, num_inference_steps=1, erasure=0.0)
    list(train(base, dataset, config, output=output))
    mine = ["notes.txt", "step-1-0.png", "step-00001-0.jpg", "my step-00001-0.png"]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "step-00009-0.png").mkdir()
    mine.append("step-00009-0.png")

    def pictures():
        return sorted(path.name for path in folder.iterdir() if path.name not in mine)

    assert pictures() == [f"step-0000{step}-0.png" for step in range(4)]
    shorter = replace(config, steps=2)
    with closing(train(base, dataset, shorter, output=output, overwrite=True)) as records:
        list(islice(records, 2))
    assert pictures() == ["step-00000-0.png", "step-00001-0.png"]
    for step in (2, 7):
        (folder / f"step-0000{step}-0.png").write_text("of a later step")
    assert checkpoint_path(output).is_file()
    records = train(base, dataset, replace(shorter, sample_every=0), output=output, resume=True)
    list(records)
    assert pictures() == ["step-00000-0.png", "step-00001-0.png"]
    list(train(base, dataset, replace(shorter, sample_every=0), output=output, overwrite=True))
    assert pictures() == [] and {*mine} == {path.name for path in folder.iterdir()}


def test_old_files_had_photos():
    assert TrainingConfig.recorded({"steps": 3}).thumbnail == "photo" and TrainingConfig().thumbnail == "auto"
