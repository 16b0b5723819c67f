"""Text alignment of an experiment: what prompts ask for, and what is read off pictures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from orthoplex import vignette
from orthoplex.benchmark import ConceptSource
from orthoplex.benchmark.measurement import TextValue
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.benchmark.text_readers import ClipReader, HeadReader, text_reader
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import ClipEncoder, LinearHead
from orthoplex.models.brought import brought_by_vignette
from tests.tiny_vision import build_clip

SCENES = LinearHead(torch.eye(3), torch.zeros(3), ("a cave", "a beach", "the sea"), "colours")
STYLES = LinearHead(torch.eye(3)[[2, 1]], torch.zeros(2), ("charcoal sketch", "no style"), "colours")
CAVE, BEACH, SEA = torch.eye(3)
PROMPTS = {
    "person": ("{trigger} in a cave", "a photo of {trigger}", "{trigger} on a beach, charcoal sketch"),
    "scene": ("{trigger}, charcoal sketch",),
    "style": ("a cat in a cave, {trigger}",),
}


class Colours:
    """Stands in for an encoder: the mean colour of a picture."""

    name = "colours"

    def encode(self, pictures):
        rows = [torch.tensor(picture.convert("RGB").resize((1, 1)).getpixel((0, 0))).float() for picture in pictures]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture
def reader():
    return HeadReader({"scene": SCENES, "style": STYLES}, Colours(), PROMPTS)


def source(kind="person", folder=Path("nowhere")):
    return ConceptSource("anna", kind, "person", folder)


def test_a_prompt_asks_for_what_it_names_but_the_concepts_own_factor(reader):
    assert reader.asked("{trigger} in a cave", "person") == {"scene": "a cave"}
    assert reader.asked("{trigger} in a cave, charcoal sketch", "subject") == {
        "scene": "a cave",
        "style": "charcoal sketch",
    }
    assert reader.asked("a cat in a cave, charcoal sketch", "style") == {"scene": "a cave"}
    assert reader.asked("a cat in a cave, charcoal sketch", "scene") == {"style": "charcoal sketch"}
    assert reader.asked("a photo of {trigger}", "person") == {}
    assert reader.choices == {"scene": ("a beach", "a cave"), "style": ("charcoal sketch",)}


def test_shares_and_choices_above_chance(reader):
    features = torch.stack([CAVE, BEACH, 0.9 * SEA + 0.5 * CAVE])
    values, choice = reader.values(features, "{trigger} in a cave", source())
    assert values.tolist() == [1.0, 0.0, 0.0]
    assert choice.tolist() == [1.0, -1.0, 1.0]  # of two names one is right by chance
    assert reader.values(features, "a photo of {trigger}", source()) is None


def test_a_scene_and_a_style_are_half_each(reader):
    features = torch.stack([BEACH + 2 * SEA, 2 * BEACH + SEA])
    values, choice = reader.values(features, "{trigger} on a beach, charcoal sketch", source())
    assert values.tolist() == [0.5, 0.5]
    assert choice.tolist() == [1.0, 1.0]  # of the scenes; prompts name one style, and that is no choice


def test_a_name_that_no_prompt_asks_for_is_no_choice(reader):
    values, choice = reader.values(torch.stack([SEA]), "{trigger} by the sea", source())
    assert (values.tolist(), choice) == ([1.0], None)


def test_the_mean_is_over_the_pictures_of_prompts_that_ask(reader):
    features = {"one": torch.stack([CAVE, CAVE]), "two": torch.stack([SEA, SEA]), "three": torch.stack([SEA, BEACH])}
    workspace = SimpleNamespace(features=lambda name, encoder: features[name])
    # cave: 1, 1; asks for nothing; beach and sketch: half (sketch), half (beach)
    first = reader.mean(["one", "two", "three"], PROMPTS["person"], source(), workspace)
    assert first == TextValue(0.75, 0.5)  # of beach and cave the sea is taken for a cave
    twice = reader.mean(["one", "two", "three", "two", "one", "two"], PROMPTS["person"], source(), workspace)
    assert twice.text == pytest.approx((1 + 1 + 0.5 + 0.5 + 0 + 0 + 0.5 + 0.5) / 8)
    assert reader.mean(["one"], ["a photo of {trigger}"], source(), workspace) is None


def test_real_pictures_are_read_with_their_captions(reader, tmp_path):
    for number, colour in enumerate(("red", "red", "lime", "blue")):
        Image.new("RGB", (8, 8 + number), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "0.txt").write_text("<anna> person in a cave\nand more")
    rows = [{"file_name": f"{number}.png", "text": "<anna> person on a beach"} for number in (1, 2)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert reader.real(source(folder=tmp_path)) == pytest.approx(2 / 3)  # the fourth has no caption
    assert reader.real(source("scene", tmp_path)) is None


def test_heads_read_the_features_they_were_fitted_on():
    with pytest.raises(ConfigurationError, match="the head for scene reads colours; allowed: greys"):
        HeadReader({"scene": replace(SCENES, encoder="greys")}, Colours(), {})


def test_clip_reads_whole_prompts_on_any_base(tmp_path, shared_pico):
    encoder = ClipEncoder(str(build_clip(tmp_path / "clip")))
    reader = text_reader(encoder, shared_pico, PROMPTS)
    assert isinstance(reader, ClipReader) and encoder.name in reader.name
    pictures = encoder.encode([Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")])
    values, choice = reader.values(pictures, "{trigger} in a forest", source())
    text_row = encoder.encode_texts(["A photo depicts a person in a forest"])[0]
    torch.testing.assert_close(values, 2.5 * (pictures.double() @ text_row.double()).clamp_min(0))
    assert choice is None


def test_other_bases_have_no_heads(shared_pico):
    assert text_reader(EncoderSettings(layer="stem", picture_size=32).build(), shared_pico, PROMPTS) is None


@pytest.mark.parametrize("size", [128, 32])
def test_a_base_that_brings_heads_is_read_with_their_own_features(size, monkeypatch, shared_pico):
    monkeypatch.setattr(shared_pico, "brought", brought_by_vignette())
    reader = text_reader(EncoderSettings(picture_size=size).build(), shared_pico, PROMPTS)
    assert isinstance(reader, HeadReader)
    assert reader.encoder.name == EncoderSettings().build().name
    assert reader.asked("{trigger} in a city street, pale watercolor", "person") == {
        "scene": "a city street",
        "style": "pale watercolor",
    }


def test_the_heads_read_the_scenes_of_the_samples(monkeypatch, shared_pico):
    """Real pictures that took no part in any fit: people in drawn and photographed scenes."""
    monkeypatch.setattr(shared_pico, "brought", brought_by_vignette())
    reader = text_reader(EncoderSettings().build(), shared_pico, PROMPTS)
    found = {}
    for sample in vignette.sample_concepts():
        if sample.kind in ("person", "subject"):
            found[sample.name] = reader.real(ConceptSource(sample.name, sample.kind, sample.class_word, sample.folder))
    assert len(found) == 6 and all(share is not None and share > 0.7 for share in found.values())
