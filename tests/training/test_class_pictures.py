"""A folder of class pictures, for prior preservation."""

from dataclasses import replace

import pytest
import torch

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.options.spellings import in_own_spelling
from orthoplex.training import train
from orthoplex.training.run import Run
from orthoplex.training.stages import prepared_foreign
from tests.training.conftest import write_pictures
from tests.training.test_loop import last_of

PROMPTS = ("a photo of a dog", "a cat")


@pytest.fixture
def given(dataset, tmp_path):
    folder = write_pictures(tmp_path / "class", 3)
    (folder / "01.txt").write_text("an old man")
    return dataset.with_class_pictures(folder)


@pytest.fixture
def preserving(config):
    return replace(config, prior_weight=0.5, erasure=0.0, steps=1)


def test_captions_and_pixels(given, dataset):
    captions = [picture.captions for picture in given.class_pictures]
    assert captions == [("a photo of a person",), ("an old man",), ("a photo of a person",)]
    assert all(picture.pixels.shape == (3, 32, 32) for picture in given.class_pictures)
    assert given.dataset_hash != dataset.dataset_hash and given.captions == dataset.captions


@pytest.mark.parametrize(("wanted", "count"), [(2, 3), (3, 3), (5, 5)])
def test_the_base_makes_what_is_missing(base, given, preserving, wanted, count):
    config = replace(preserving, prior_pictures=wanted)
    prior, _ = prepared_foreign(base, given, Run.of(base, given, config), PROMPTS)
    assert prior is not None and len(prior.latents) == len(prior.ids) == count
    assert torch.equal(prior.ids[1], base.family.words.ids(["an old man"])[0])
    expected = base.family.latents(given.class_pictures[0].pixels[None].float() / 127.5 - 1.0)
    torch.testing.assert_close(prior.latents[:1], expected)


def test_they_are_trained_with(base, given, preserving, tmp_path):
    assert last_of(train(base, given, preserving, output=tmp_path / "anna.safetensors")).output is not None


def test_without_prior_preservation_they_are_refused(base, given, preserving, tmp_path):
    with pytest.raises(
        ConfigurationError, match="prior_weight is 0.0 and 3 class pictures are given; allowed is above 0"
    ):
        train(base, given, replace(preserving, prior_weight=0.0), output=tmp_path / "anna.safetensors")


def test_a_folder_without_pictures_is_refused(dataset, tmp_path):
    with pytest.raises(DatasetError, match="holds no pictures"):
        dataset.with_class_pictures(tmp_path)


@pytest.mark.parametrize("name", ["class_data_dir", "reg_data_dir"])
def test_other_spellings_say_the_option(name):
    with pytest.raises(ConfigurationError, match="--class-data names the folder"):
        in_own_spelling({name: "class"})
