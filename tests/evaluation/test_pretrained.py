"""CLIP and DINOv2 as encoders, tiny ones with random weights."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import PRETRAINED, ClipEncoder, DinoEncoder
from orthoplex.evaluation.pretrained import Preparation
from tests.tiny_vision import build_clip, build_dino

WIDTHS = {"clip": 12, "dino": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    return {"clip": build_clip(root / "tiny-clip"), "dino": build_dino(root / "tiny-dino")}


def drawing(colour, size=(48, 40)):
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse((8, 8, 30, 30), fill=colour)
    return picture


@pytest.mark.parametrize("kind", WIDTHS)
def test_rows_are_unit_and_do_not_depend_on_the_batch_or_the_run(kind, folders):
    pictures = [drawing("red"), drawing("blue", (64, 64)), drawing("green", (32, 90)).convert("RGBA")]
    encoder = PRETRAINED[kind](str(folders[kind]), batch_size=2)
    rows = encoder.encode(pictures)
    assert rows.shape == (3, WIDTHS[kind]) and rows.dtype == torch.float32 and not rows.requires_grad
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    one_by_one = torch.cat([encoder.encode([picture]) for picture in pictures])
    torch.testing.assert_close(rows, one_by_one, atol=1e-5, rtol=0)
    assert torch.equal(PRETRAINED[kind](str(folders[kind]), batch_size=2).encode(pictures), rows)
    assert encoder.encode([]).shape == (0, WIDTHS[kind])


@pytest.mark.parametrize("kind", WIDTHS)
def test_the_name_tells_weights_apart(kind, folders, tmp_path):
    build = {"clip": build_clip, "dino": build_dino}[kind]
    other = build(tmp_path / folders[kind].name, seed=1)
    names = {PRETRAINED[kind](str(folder)).name for folder in (folders[kind], other)}
    assert len(names) == 2
    assert all(name.startswith(f"{kind}-tiny-{kind}-") and "/" not in name for name in names)


def test_a_folder_may_lie_in_the_home_folder(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders["clip"].parent))
    assert ClipEncoder("~/tiny-clip").name == ClipEncoder(str(folders["clip"])).name


def test_texts_are_unit_rows_in_the_space_of_pictures(folders):
    encoder = ClipEncoder(str(folders["clip"]))
    texts = ["a dog", "a photo of a cat in a forest", "word " * 100]
    rows = encoder.encode_texts(texts)
    assert rows.shape == (3, WIDTHS["clip"]) and not rows.requires_grad
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    one_by_one = torch.cat([encoder.encode_texts([text]) for text in texts])
    torch.testing.assert_close(rows, one_by_one, atol=1e-5, rtol=0)


def test_features_are_those_of_the_library(folders):
    from transformers import CLIPModel

    encoder, prepare = ClipEncoder(str(folders["clip"])), Preparation(32, 32, (0.48145466, 0.4578275, 0.40821073), (
        0.26862954, 0.26130258, 0.27577711
    ))  # fmt: skip
    pixels = prepare([drawing("red")])
    with torch.no_grad():
        model = CLIPModel.from_pretrained(folders["clip"])
        tokens = {"input_ids": torch.tensor([[0, 1]]), "pixel_values": pixels}
        found = model(**tokens).image_embeds
    torch.testing.assert_close(encoder.encode([drawing("red")]), found, atol=1e-5, rtol=0)


def test_preparation_takes_the_middle_and_normalises():
    prepare = Preparation(8, 4, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, 8:24] = 255  # the middle half of the width, which is all that is left
    (found,) = prepare([Image.fromarray(pixels)])
    assert found.shape == (3, 4, 4)
    torch.testing.assert_close(found.mean(dim=(1, 2)), torch.tensor([2.0, 1.0, 0.5]))


@pytest.mark.parametrize("kind", WIDTHS)
def test_what_is_no_model_is_named(kind, folders, tmp_path):
    other = {"clip": "dino", "dino": "clip"}[kind]
    with pytest.raises(ConfigurationError, match="nowhere' cannot be used: there is no such folder; allowed: a folder"):
        PRETRAINED[kind](str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="'' cannot be used"):
        PRETRAINED[kind]("")
    with pytest.raises(ConfigurationError, match=f"tiny-{other}' cannot be used: it is a '.*' model; allowed"):
        PRETRAINED[kind](str(folders[other]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty' cannot be used"):
        PRETRAINED[kind](str(tmp_path / "empty"))
    torn = tmp_path / "torn"
    shutil.copytree(folders[kind], torn)
    (torn / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match="torn' cannot be used: .*; allowed"):
        PRETRAINED[kind](str(torn))


def test_weights_that_are_not_whole_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    part = tmp_path / "part"
    shutil.copytree(folders["dino"], part)
    weights = load_file(part / "model.safetensors")
    weights.pop("layernorm.weight")
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match="its weights lack layernorm.weight"):
        DinoEncoder(str(part))


def test_a_clip_without_its_words_is_refused(folders, tmp_path):
    mute = tmp_path / "mute"
    shutil.copytree(folders["clip"], mute)
    for path in mute.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(ConfigurationError, match="its tokenizer"):
        ClipEncoder(str(mute))
