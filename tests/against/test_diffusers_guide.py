"""The Python examples of ``docs/concept-file.md`` run as they stand, and both ways give the same picture."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy
import torch

from orthoplex.concepts import save_concept
from orthoplex.models import base_place
from tests.pico import make_concept

GUIDE = Path(__file__).parents[2] / "docs" / "concept-file.md"


def test_the_examples_of_the_guide_run_and_agree(pico, pico_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base_place.vignette, "folder", lambda: pico_folder)
    shutil.copytree(pico_folder, "a-base-folder")
    save_concept(make_concept(pico, num_vectors=2, scale=0.3, text_encoder=True), "anna.safetensors")
    ours, theirs = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)
    names: dict = {}
    exec(ours, names)
    assert capsys.readouterr().out == "<anna> person\n"
    assert len(names["pictures"]) == 2
    exec(theirs, names)
    names["pipeline"].set_progress_bar_config(disable=True)
    picture = names["pipeline"](
        "a photo of <anna> person in the forest",
        num_inference_steps=20,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    difference = numpy.asarray(picture, numpy.int16) - numpy.asarray(names["pictures"][0], numpy.int16)
    assert numpy.abs(difference).max() <= 2
