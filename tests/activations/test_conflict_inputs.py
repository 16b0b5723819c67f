"""Conflicts with a base at hand: crosstalk of files of other programs under the triggers that their headers tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orthoplex.activations import conflicts_for
from orthoplex.adapters import LowRank
from orthoplex.concepts import foreign_concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.models import Base
from tests.pico import make_concept

TRIGGER = {"modelspec.trigger_phrase": "sks person"}


def lora(base: Base, name: str, seed: int, **fields) -> LoraFile:
    layers = make_concept(base, name, selection="cross-attention-kv", scale=1.0, seed=seed).layers
    return replace(LoraFile(name, "kohya", "stable_diffusion", None, layers, metadata=TRIGGER), **fields)


def test_files_that_tell_a_trigger_have_the_crosstalk_of_concepts(base):
    files = [lora(base, "ink", 1), lora(base, "oil", 2, metadata={"modelspec.trigger_phrase": "ohwx dog"})]
    adopted = [foreign_concept(file, base.identity) for file in files]
    report, concepts = (conflicts_for(base, [(file, 1.0) for file in some]) for some in (files, adopted))
    assert report.quantity == "crosstalk" and all(file.crosstalk for file in report.files)
    assert [file.crosstalk for file in report.files] == pytest.approx([file.crosstalk for file in concepts.files])
    assert report.notes == ()
    halved = conflicts_for(base, [(files[0], 0.5), (files[1], 1.0), (lora(base, "none", 3, metadata={}), 0.0)])
    assert halved.files[0].crosstalk == pytest.approx(2 * (report.files[0].crosstalk or 0))
    assert halved.notes == ("none has strength 0 and is not in the merge",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"metadata": {}}, "its header tells no trigger"),
        (
            {"layers": {"unet.nowhere": LowRank(torch.ones(2, 1), torch.ones(1, 3))}},
            "it changes layer unet.nowhere of (2, 3), here there is none",
        ),
        ({"version": "sdxl", "family": "stable_diffusion_xl"}, "is a LoRA for sdxl"),
    ],
    ids=["no trigger", "no such layer", "another family"],
)
def test_why_the_crosstalk_of_a_file_is_not_known_is_a_note(base, fields, reason):
    report = conflicts_for(base, [(lora(base, "ink", 1), 1.0), (lora(base, "oil", 2, **fields), 1.0)])
    assert report.quantity == "disturbance" and report.files[1].crosstalk is None
    (note,) = (note for note in report.notes if "crosstalk" in note)
    assert note.startswith("oil: its crosstalk is not known: ") and reason in note
