import json

import numpy as np
import pytest
from PIL import Image

from tests.tiny_vision import build_clip, build_dino


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        made[name] = tmp_path_factory.mktemp(name)
        for number in range(2):
            pixels = np.full((32, 32, 3), colour, dtype=np.uint8)
            pixels[: 4 * number + 4] = 255
            Image.fromarray(pixels).save(made[name] / f"{number}.png")
    return made


def test_numbers_for_people(run, folders):
    options = ["--references", folders["red"], "--other", f"blue={folders['blue']}", "--impostors", folders["blue"]]
    result = run("evaluate", folders["red"], *options, "--picture-size", 32)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    for words in ("image alignment", "among the references", "recognised as", "identity at 5 % false positives"):
        assert words in text


def test_numbers_as_json(run, folders):
    result = run("evaluate", folders["blue"], "--references", folders["red"], "--picture-size", 32, "--json")
    values = json.loads(result.stdout)
    assert values["num_pictures"] == 2 and values["recognised"] is None
    assert values["alignment"]["low"] <= values["alignment"]["value"] <= values["alignment"]["high"]


def test_other_encoders_are_loaded_from_folders(run, folders, tmp_path):
    clip, dino = build_clip(tmp_path / "clip"), build_dino(tmp_path / "dino")
    options = ["--references", folders["red"], "--json"]
    result = run("evaluate", folders["red"], *options, "--encoder", f"clip={clip}", "--prompt", "a red picture")
    values = json.loads(result.stdout)
    assert values["encoder"].startswith("clip-clip-") and 0 <= values["text"]["value"] <= 2.5
    values = json.loads(run("evaluate", folders["red"], *options, "--encoder", f"dino={dino}").stdout)
    assert values["encoder"].startswith("dino-dino-") and values["text"] is None


def test_text_alignment_for_people(run, folders, tmp_path):
    clip = build_clip(tmp_path / "clip")
    options = ["--references", folders["red"], "--encoder", f"clip={clip}", "--prompt", "a red picture"]
    result = run("evaluate", folders["red"], *options)
    assert result.exit_code == 0 and "text alignment" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--other", "blue"], "other is 'blue'; allowed is NAME=FOLDER"),
        (["--other", "a=x", "--other", "a=y"], "other 'a' is given twice"),
        (["--impostors", "nowhere"], "folder nowhere does not exist"),
        (["--picture-size", "100"], "encoder picture_size is 100; allowed: multiples of 32"),
        (["--picture-size", "1000000"], "encoder picture_size is 1000000; allowed are whole numbers from 1 to 4096"),
        (["--encoder", "vgg"], "encoder kind is 'vgg'; allowed are 'mobilenet', 'clip', 'dino', 'face'"),
        (["--encoder", "clip="], "encoder is 'clip='; allowed is KIND or KIND=MODEL"),
        (["--encoder", "clip=./nowhere"], "encoder model './nowhere' cannot be used: there is no such folder"),
        (["--encoder", "mobilenet=x"], "encoder model is 'x', which the kind 'mobilenet' does not have"),
        (["--encoder", "dino=x", "--picture-size", "64"], "encoder picture_size is 64, which the kind 'dino' does not"),
        (["--prompt", "a cat"], "prompt is 'a cat' with mobilenetv2-bottleneck-224px-grid1; allowed"),
    ],
)
def test_errors_are_one_line(run, folders, options, message):
    result = run("evaluate", folders["red"], "--references", folders["red"], *options)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
