"""A folder of class pictures, for prior preservation."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.options.spellings import in_own_spelling
from orthoplex.training import ConceptDataset, DataFolder, train
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


def test_they_have_no_masks_and_captions_name_the_class(dataset, tmp_path, caplog):
    """Masks are not looked at, whatever is wrong with them; notices are logged as of training pictures."""
    folder = write_pictures(tmp_path / "class", 3, size=(80, 30))
    (folder / "00-mask.png").write_bytes(b"no picture")
    Image.new("L", (9, 9)).save(folder / "01-mask.png")
    Image.new("RGBA", (40, 40)).save(folder / "clear.png")
    for number, text in enumerate(["a photo of TOKEN in the snow", "an <Anna> person, [name]", "a lady\na man"]):
        (folder / f"{number:02d}.txt").write_text(text)
    (folder / "clear.txt").write_text("one <lora:x:1>")
    given = dataset.with_class_pictures(folder)
    assert [picture.captions[0] for picture in given.class_pictures] == [
        "a photo of person in the snow", "an person, person", "a lady", "one <lora:x:1>",
    ]  # fmt: skip
    assert all(picture.mask is None for picture in given.class_pictures)
    names = "00.png, 01.png, 02.png"
    assert [record.message for record in caplog.records] == [
        "class pictures: several captions a picture: 02.png; each line is a caption of its own, so tags belong in one "
        "line, with commas between them",
        "class pictures: 00.png (80×30), 01.png (80×30), 02.png (80×30): smaller than 32×32, and enlarged; "
        "details are lost",
        f"class pictures: {names}: the square in the middle leaves out more than half of the picture",
        "class pictures: 02.png: of several captions the first is read",
        "class pictures: captions of clear.png hold <lora:x:1>, which is learned as text; networks are no captions; "
        "take them out",
    ]
    account = DataFolder.scan(folder, with_masks=False)
    assert account.summary.endswith("not read: 2 unused masks") and not account.errors
    assert "so their masks are not used" in account.unread[0].reason


def test_no_rare_word_stands_in_their_captions(base, given, preserving):
    config = replace(preserving, token_vectors="rare word")
    run = Run.of(base, given, config)
    word = run.called(base, given, ["a cat"]).word
    (first, *others) = given.class_pictures
    naming = replace(given, class_pictures=(replace(first, captions=(f"a {word} cat",)), *others))
    assert run.called(base, naming, ["a cat"]).word != word


def test_they_are_trained_with(base, given, preserving, tmp_path):
    assert last_of(train(base, given, preserving, output=tmp_path / "anna.safetensors")).output is not None


def test_all_pictures_are_of_the_data_set_s_resolution(base, config, tmp_path, folder):
    """Given ones, those that the base makes, and samples; between two records the base is as it was."""
    options = {"token": "<anna>", "class_word": "person"}
    large = ConceptDataset.from_folder(folder, resolution=64, **options).with_class_pictures(folder)
    config = replace(config, prior_weight=1.0, prior_pictures=5, steps=1, sample_every=1, thumbnail="generated")
    config = replace(config, erasure_form="prediction")
    for record in train(base, large, config, output=tmp_path / "anna.safetensors"):
        assert [image.size for image in record.images] == [(64, 64)] and base.family.resolution == 32
    assert record.output is not None and base.family.use_resolution(None) is None
    odd = ConceptDataset.from_folder(folder, resolution=33, **options)
    with pytest.raises(ConfigurationError, match="resolution is 33; allowed are multiples of 4"):
        train(base, odd, config, output=tmp_path / "bob.safetensors")


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
    with pytest.raises(ConfigurationError, match="an argument of its own, --class-data"):
        in_own_spelling({name: "class"})
