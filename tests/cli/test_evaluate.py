import json

import numpy as np
import pytest
from PIL import Image


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--other", "blue"], "other is 'blue'; allowed is NAME=FOLDER"),
        (["--other", "a=x", "--other", "a=y"], "other 'a' is given twice"),
        (["--impostors", "nowhere"], "folder nowhere does not exist"),
        (["--picture-size", "100"], "encoder picture_size is 100; allowed: multiples of 32"),
        (["--picture-size", "1000000"], "encoder picture_size is 1000000; allowed: whole numbers from 1 to 4096"),
    ],
)
def test_errors_are_one_line(run, folders, options, message):
    result = run("evaluate", folders["red"], "--references", folders["red"], *options)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
