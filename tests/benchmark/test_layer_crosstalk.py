"""Crosstalk of concepts, and whether it goes with what is lost."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.benchmark import sections
from orthoplex.benchmark.layer_crosstalk import (
    CrosstalkSummary,
    measure_crosstalk,
    rank_correlation,
    summarise_crosstalk,
)
from orthoplex.benchmark.measurement import Measurement
from orthoplex.benchmark.sections import crosstalk_section, erasure_chart
from orthoplex.concepts import BaseIdentity, Concept, Manifest
from orthoplex.evaluation import Interval
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
    anna, mia = measure_crosstalk(
        "v", 0, concepts, [["anna", "mia", "solo"]], WEIGHTS, inputs
    )  # layer b has one owner: no crosstalk
    given = (3 * 1.25) ** 0.5
    assert (anna.own, anna.others) == pytest.approx((1 / given, (4 * 0.25) ** 0.5 / given))
    assert (mia.own, mia.others) == pytest.approx((2 / 3**0.5, 0.0))
    assert anna.shared == mia.shared == 0.0 and anna.expected_shared == 0.25


def measurement(variant, name, merged):
    values = {item.name: 0.0 for item in dataclasses.fields(Measurement)}
    values |= {"variant": variant, "size": 2, "seed": 0, "concept": name, "kind": "person"}
    values |= {"single_alignment": 1.0, "merged_alignment": merged, "single_as": {}, "merged_as": {}}
    return Measurement(**values)


SEEN = [1.0, 0, 0, 0]


def test_only_the_members_of_a_merge_speak():
    concepts = [concept("anna", 0, 1.0), concept("mia", 0, 2.0), concept("lea", 0, 4.0)]
    inputs = grams(concepts, anna=SEEN, mia=SEEN, lea=SEEN)
    groups = [["anna", "mia"], ["anna", "lea"]]
    rows = measure_crosstalk("v", 0, concepts, groups, WEIGHTS, inputs)
    assert [row.others * 3**0.5 for row in rows] == pytest.approx([(2 + 4) / 2, 1, 1])
    assert [row.concept for row in measure_crosstalk("v", 0, concepts, groups[:1], WEIGHTS, inputs)] == ["anna", "mia"]


def test_a_change_of_the_whole_weight_has_no_directions():
    whole = [replace(concept(name, 0), layers={"unet.a": LowRank(torch.ones(3, 3), torch.ones(3, 4))}) for name in "ab"]
    rows = measure_crosstalk("v", 0, whole, [["a", "b"]], WEIGHTS, grams(whole, a=SEEN, b=SEEN))
    assert all(row.shared is None and row.expected_shared is None and row.others > 0 for row in rows)
    (summary,) = summarise_crosstalk(rows, [])
    assert summary.shared == {} and set(summary.others) == {"v"}


def test_a_narrow_change_beside_one_of_the_whole_weight_has_an_overlap_with_it():
    whole = replace(concept("b", 0), layers={"unet.a": LowRank(torch.ones(3, 3), torch.eye(4)[:3])})
    mixed = [concept("a", 0), whole]
    narrow, wide = measure_crosstalk("v", 0, mixed, [["a", "b"]], WEIGHTS, grams(mixed, a=SEEN, b=SEEN))
    assert (narrow.shared, narrow.expected_shared) == (1.0, 0.75) and wide.shared is None


def test_summaries_set_crosstalk_beside_loss_within_each_variant():
    rows, lost = [], []
    for variant, sizes in {"v": (1.0, 2.0, 4.0), "w": (10.0, 20.0, 40.0)}.items():
        concepts = [concept(name, 0, size) for name, size in zip(("anna", "mia", "lea"), sizes, strict=True)]
        inputs = grams(concepts, anna=SEEN, mia=SEEN, lea=SEEN)
        rows += measure_crosstalk(variant, 0, concepts, [["anna", "mia", "lea"]], WEIGHTS, inputs)
    for variant, merged in {"v": (0.1, 0.2, 0.3), "w": (0.7, 0.8, 0.9)}.items():  # w disturbs more and loses less
        lost += [measurement(variant, name, kept) for name, kept in zip(("anna", "mia", "lea"), merged, strict=True)]
    (summary,) = summarise_crosstalk(rows, lost)  # but within each, who is disturbed most loses most
    assert summary.layer == "unet.a" and summary.correlation == pytest.approx(1.0)
    assert summary.others["v"] == pytest.approx((6 + 5 + 3) / 3 / 3**0.5) and summary.shared["v"] == pytest.approx(1.0)
    (unknown,) = summarise_crosstalk(rows, [])
    assert unknown.correlation is None


def test_layers_that_a_variant_leaves_alone_are_silent(monkeypatch):
    drawn = {}
    monkeypatch.setattr(sections, "scatter", lambda panels, **_: drawn.update(panels) or "svg")
    others = {"unet.a": {"a": 1.0}, "unet.b": {"a": 3.0, "b": 6.0}}
    layers = [CrosstalkSummary(name, {}, values, {}, {}, None) for name, values in others.items()]
    left = {"identity": {"a": Interval(0.9, 0.8, 1.0), "b": Interval(0.5, 0.4, 0.6), "tokens": Interval(1.0, 1.0, 1.0)}}
    assert erasure_chart(layers, left, title="t") == "svg"
    (points,) = drawn.values()
    assert {name: place for name, (place, _) in points.items()} == {"a": 2.0, "b": 3.0}
    assert erasure_chart([], left, title="t") == ""


def test_a_variant_that_lacks_the_first_layer_is_in_the_table():
    wide = [concept(name, 0, layers=("unet.a", "unet.b")) for name in ("anna", "mia")]
    seen = {c.content_hash: {layer: torch.eye(4) for layer in WEIGHTS} for c in wide}
    narrow = [replace(c, layers={"unet.b": c.layers["unet.b"]}) for c in wide]
    alike = {c.content_hash: {"unet.b": torch.eye(4)} for c in narrow}
    rows = measure_crosstalk("narrow", 0, narrow, [["anna", "mia"]], WEIGHTS, InputGrams(alike))
    rows = measure_crosstalk("wide", 0, wide, [["anna", "mia"]], WEIGHTS, InputGrams(seen)) + rows
    text = crosstalk_section(summarise_crosstalk(rows, []))
    assert "wide: own" in text and "narrow: own" in text


def test_random_rows_share_as_many_directions_as_expected():
    """Mean of squares, not of roots: of sixteen rows of 64, any two sets have four in common in the mean."""
    many = []
    for number in range(24):
        rows = torch.eye(64)[torch.randperm(64, generator=torch.Generator().manual_seed(number))[:16]]
        many.append(replace(concept(str(number), 0), layers={"unet.a": LowRank(torch.ones(32, 16), rows)}))
    seen = {c.content_hash: {"unet.a": torch.eye(64)} for c in many}
    names = [c.manifest.name for c in many]
    found = measure_crosstalk("v", 0, many, [names], {"unet.a": torch.ones(32, 64)}, InputGrams(seen))
    assert {row.expected_shared for row in found} == {4.0}
    assert sum(row.shared or 0 for row in found) / len(found) == pytest.approx(4.0, abs=0.25)


def test_rank_correlation():
    assert rank_correlation([(1, 10), (2, 20), (3, 15)]) == pytest.approx(0.5)
    assert rank_correlation([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1.0)
    assert rank_correlation([(1, 1), (1, 1), (2, 2)]) == pytest.approx(1.0)
    assert rank_correlation([(1, 1), (2, 2)]) is None
    assert rank_correlation([(1, 1), (1, 2), (1, 3)]) is None
