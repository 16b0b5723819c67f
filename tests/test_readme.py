"""The README: its figures are those of results/demo.json, its Python runs, and it stays short."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.newcomer import commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOUND = {"value": 1.0126, "low": 0.9949, "high": 1.0293}
VALUES = {
    "machine": {"threads": 1, "bf16": False},
    "seconds": {"training": 147.3, "merging": 0.1315, "merging LoRA": 33.1, "a picture": 0.4411},
    "live": ["anna", "otto"],
    "retention": [
        {
            "variant": "Orthoplex",
            "alignment_retention": FOUND,
            "recognised_retention": None,
            "identity_retention": FOUND | {"value": 0.5},
        }
    ],
}


@pytest.fixture(scope="module")
def script():
    """`.ci/readme.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("readme_script", ROOT / ".ci" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_figures_are_those_of_the_demo(script):
    assert script.up_to_date(README) == README, "python .ci/readme.py brings README.md up to date"


def test_it_is_short():
    assert len(README.splitlines()) <= 90


def test_a_row_for_every_variant(script):
    assert script.table(VALUES).splitlines()[2:] == ["| Orthoplex | 1.01 (0.99–1.03) | – | 0.50 (0.99–1.03) |"]


def test_times_are_of_one_concept(script):
    assert script.times(VALUES, [1024, 3072]).replace("\n", " ") == (
        "On 1 thread without bf16 arithmetic a concept trains in 74 s into a file of 2 KiB; "
        "a merge of 2 takes 0.13 s (merging LoRA: 33 s), and a picture 0.44 s."
    )


@pytest.mark.parametrize("text", ["no markers", "<!-- a -->\n<!-- /a -->\n<!-- a -->\n<!-- /a -->\n"])
def test_markers_are_there_once(script, text):
    with pytest.raises(ValueError, match="markers of a: [02] pairs; allowed: 1"):
        script.filled(text, {"a": "new"})


def test_text_around_markers_stays(script):
    assert script.filled("x\n<!-- a -->\nold\n<!-- /a -->\ny", {"a": r"\1 new"}) == (
        "x\n<!-- a -->\n\\1 new\n<!-- /a -->\ny"
    )


def test_a_demo_is_taken_over(script, tmp_path, monkeypatch):
    demo, results, images = tmp_path / "demo", tmp_path / "demo.json", tmp_path / "images"
    demo.mkdir()
    images.mkdir()
    monkeypatch.setattr(script, "RESULTS", results)
    monkeypatch.setattr(script, "IMAGES", images)
    (demo / "demo.json").write_text("{}")
    for name in ("strip.jpg", "combinations.jpg", "gallery_sheet.png"):
        Image.new("RGB", (8, 8)).save(demo / name)
    script.take_over(demo)
    assert results.read_text() == "{}"
    assert {path.name for path in images.iterdir()} == {"strip.jpg", "combinations.jpg", "gallery.jpg"}


def test_its_python_makes_a_picture(tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(example.splitlines()) == 5
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "anna.png") as picture:
        assert picture.size == (128, 128)


def test_the_way_to_an_own_concept_can_be_taken_from_the_readme():
    setup, training, picture = commands(README)
    assert setup.startswith("make env")
    assert training.startswith("orthoplex train orthoplex/vignette/samples/otto --name otto --class-word animal ")
    assert picture.startswith('orthoplex generate "<otto> animal ') and "--concept otto.safetensors" in picture
    with pytest.raises(ValueError, match="names no way"):
        commands("# Nothing")
