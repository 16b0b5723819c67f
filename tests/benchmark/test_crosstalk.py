"""Crosstalk of concepts, and whether it goes with what is lost."""

import dataclasses

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.benchmark.crosstalk import measure_crosstalk, rank_correlation, summarise_crosstalk
from orthoplex.benchmark.measurement import Measurement
from orthoplex.concepts import BaseIdentity, Concept, Manifest
from orthoplex.merging import InputGrams


def concept(name, axis, size=1.0, layers=("unet.a",)):
    """It says `size` along output 0 wherever the input has its axis."""
    down = torch.zeros(1, 4)
    down[0, axis] = 1.0
    up = torch.zeros(3, 1)
    up[0] = size
    manifest = Manifest(name, "person", "person", f"<{name}>", BaseIdentity("sd1", "0" * 64, "b"), "lora")
    return Concept(manifest, {layer: LowRank(up, down) for layer in layers})


def grams(concepts, **seen):
    """What a layer sees under a concept's prompts: the axes named, with the energies named."""
    return InputGrams({c.content_hash: {"unet.a": torch.diag(torch.tensor(seen[c.name]))} for c in concepts})


WEIGHTS = {"unet.a": torch.ones(3, 4), "unet.b": torch.ones(3, 4)}


def test_own_and_others_per_layer():
    concepts = [concept("anna", 0), concept("mia", 1, 2.0), concept("solo", 2, layers=("unet.b",))]
    inputs = grams(concepts, anna=[1.0, 0.25, 0, 0], mia=[0.0, 1.0, 0, 0], solo=[0.0, 0, 1.0, 0])
    anna, mia = measure_crosstalk("v", 0, concepts, WEIGHTS, inputs)  # layer b has one owner: no crosstalk
    given = (3 * 1.25) ** 0.5
    assert (anna.own, anna.others) == pytest.approx((1 / given, (4 * 0.25) ** 0.5 / given))
    assert (mia.own, mia.others) == pytest.approx((2 / 3**0.5, 0.0))
    assert anna.overlap == mia.overlap == 0.0 and anna.expected_overlap == 0.5


def measurement(variant, name, merged):
    values = {item.name: 0.0 for item in dataclasses.fields(Measurement)}
    values |= {"variant": variant, "size": 2, "seed": 0, "concept": name, "kind": "person"}
    values |= {"single_alignment": 1.0, "merged_alignment": merged, "single_as": {}, "merged_as": {}}
    return Measurement(**values)


def test_summaries_set_crosstalk_beside_loss():
    rows = []
    for variant, sizes in {"v": (1.0, 2.0), "w": (3.0, 4.0)}.items():
        concepts = [concept("anna", 0, sizes[0]), concept("mia", 0, sizes[1])]
        rows += measure_crosstalk(
            variant, 0, concepts, WEIGHTS, grams(concepts, anna=[1.0, 0, 0, 0], mia=[1.0, 0, 0, 0])
        )
    lost = [measurement("v", "mia", 0.9), measurement("v", "anna", 0.8), measurement("w", "mia", 0.7)]
    lost.append(measurement("w", "anna", 0.6))  # what is lost grows with what the other says
    (summary,) = summarise_crosstalk(rows, lost)
    assert summary.layer == "unet.a" and summary.correlation == pytest.approx(1.0)
    assert summary.others["v"] == pytest.approx(1.5 / 3**0.5) and summary.overlap["v"] == pytest.approx(1.0)
    (unknown,) = summarise_crosstalk(rows, [])
    assert unknown.correlation is None


def test_rank_correlation():
    assert rank_correlation([(1, 10), (2, 20), (3, 15)]) == pytest.approx(0.5)
    assert rank_correlation([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1.0)
    assert rank_correlation([(1, 1), (1, 1), (2, 2)]) == pytest.approx(1.0)
    assert rank_correlation([(1, 1), (2, 2)]) is None
    assert rank_correlation([(1, 1), (1, 2), (1, 3)]) is None
