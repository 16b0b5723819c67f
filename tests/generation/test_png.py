"""PNG files that carry their recipe."""

from __future__ import annotations

import json

import numpy
import pytest
from PIL import Image

from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.generation import read_recipe, save_png
from orthoplex.generation.png import parameters_text

RECIPE = {
    "prompt": "a photo of <anna> with a naïve cat",
    "negative_prompt": "night",
    "seed": 7,
    "num_inference_steps": 20,
    "guidance_scale": 4.0,
    "base": {"family": "sd1", "hash": "abcdef0123456789", "name": "pico"},
    "merge": {"concepts": [{"name": "anna", "strength": 1.0}, {"name": "rex", "strength": 0.8}]},
}


@pytest.fixture
def image():
    values = numpy.random.default_rng(0).integers(0, 256, (8, 12, 3), numpy.uint8)
    return Image.fromarray(values)


def test_picture_and_recipe_come_back(image, tmp_path):
    path = tmp_path / "deep" / "a.png"
    save_png(image, path, RECIPE)
    assert read_recipe(path) == RECIPE
    with Image.open(path) as again:
        assert again.format == "PNG" and numpy.array_equal(numpy.asarray(again), numpy.asarray(image))
        assert json.loads(again.info["orthoplex"]) == RECIPE
        assert again.info["parameters"] == parameters_text(RECIPE)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_the_parameters_text_written_out():
    assert parameters_text(RECIPE) == (
        "a photo of <anna> with a naïve cat\n"
        "Negative prompt: night\n"
        "Steps: 20, CFG scale: 4.0, Seed: 7, Model: pico, Model hash: abcdef012345, Concepts: anna@1 rex@0.8"
    )
    assert parameters_text({"prompt": "a cat", "seed": 0, "merge": None}) == "a cat\nSeed: 0"


def test_another_suffix_is_refused(image, tmp_path):
    with pytest.raises(ConfigurationError, match=r"a.jpg: a picture with its recipe is named '\*.png', not '\*.jpg'"):
        save_png(image, tmp_path / "a.jpg", RECIPE)


def test_pictures_without_a_recipe_are_refused(image, tmp_path):
    path = tmp_path / "plain.png"
    image.save(path)
    with pytest.raises(ConfigurationError, match="plain.png: carries no recipe, allowed is a PNG"):
        read_recipe(path)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ConfigurationError, match="text.png: is no picture"):
        read_recipe(tmp_path / "text.png")
    with pytest.raises(ConfigurationError, match="nowhere.png: is no picture"):
        read_recipe(tmp_path / "nowhere.png")


def test_a_recipe_that_is_no_json_object_is_refused(image, tmp_path):
    from PIL import PngImagePlugin

    for text in ("{", "[1]"):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("orthoplex", text)
        image.save(tmp_path / "odd.png", pnginfo=chunks)
        with pytest.raises(ConfigurationError, match="odd.png: carries no recipe"):
            read_recipe(tmp_path / "odd.png")


def test_a_failing_write_leaves_nothing(image, tmp_path, monkeypatch):
    def failing(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(OutputError, match="cannot be written: disk full"):
        save_png(image, tmp_path / "a.png", RECIPE)
    assert list(tmp_path.iterdir()) == []
