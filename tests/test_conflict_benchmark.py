"""The benchmark of the verdict: its sets and halves, its limits, and that the verdict uses what it found."""

import json
from pathlib import Path

import pytest

from benchmarks.conflict_pictures import POOLS, SIZES, STRENGTHS, halves_of, random_sets
from benchmarks.conflicts import LOST, SetResult, balanced_accuracy, foretelling, limit
from orthoplex.merging.conflict_verdict import LIMITS, level_of

RESULTS = Path(__file__).parent.parent / "results" / "conflicts.json"


def result(number, overlap, retention):
    quantities = {"crosstalk": overlap}
    return SetResult(number, ("anna/lora@1", "rex/orthogonal@0.7"), "test", retention, 0.0, 0.0, quantities, "none")


def test_sets_are_the_same_whenever_they_are_drawn():
    sets = random_sets(60, 0)
    assert sets[:20] == random_sets(20, 0) and sets != random_sets(60, 1)
    for number, members in enumerate(sets):
        assert len(members) == SIZES[number % len(SIZES)] == len({member.name for member in members})
        assert {member.method for member in members} <= set(POOLS[number % len(POOLS)])
        assert {member.strength for member in members} <= ({1.0} if number % 2 == 0 else set(STRENGTHS))


def test_more_sets_leave_the_halves_of_the_first_as_they_are():
    few, many = halves_of(40, 0), halves_of(70, 0)
    assert [n for n in many[0] if n < 40] == few[0] and len(few[0]) == 20
    assert sorted(many[0] + many[1]) == list(range(70))


def test_a_limit_divides_sets_that_lose_from_others():
    results = [result(i, overlap, kept) for i, (overlap, kept) in enumerate([(0.1, 1.0), (0.2, 0.99), (0.6, 0.9)])]
    assert limit(results, "crosstalk", 0.05) == 0.4 and balanced_accuracy(results, "crosstalk", 0.4, 0.05) == 1.0
    assert balanced_accuracy(results, "crosstalk", 0.15, 0.05) == pytest.approx(0.75)
    assert foretelling(results, "crosstalk").value == pytest.approx(1.0)
    assert results[0].pool == "lora and orthogonal"


def test_the_verdict_uses_the_calibrated_limits():
    values = json.loads(RESULTS.read_text("utf-8"))
    assert {name: tuple(limits) for name, limits in values["calibrated limits"].items()} == LIMITS
    assert values["lost"] == LOST
    for row in values["sets"]:
        assert row["level"] == level_of(row["quantities"]["crosstalk"], "crosstalk")
