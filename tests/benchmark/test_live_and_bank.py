"""The benchmarks of live sets, banks and the merge engine do what they say, in small."""

from __future__ import annotations

import pytest

from benchmarks import bank, live, merge_engine
from benchmarks.merge_peers import chart
from benchmarks.random_members import Row


@pytest.mark.slow
def test_threads_that_switch_and_draw():
    measured = live.measure(seconds=2, threads=2, sets=3)
    assert measured["pictures"] > 0 and measured["live"] == {"pictures": 10, "changed_before_the_end": 10, "errors": 0}
    assert set(measured["outcomes"]) <= {"right", "asked without the lock"}


@pytest.mark.slow
def test_a_bank_whose_writers_are_killed(tmp_path):
    measured = bank.torture(tmp_path, kills=2)
    assert measured["slots_told"] > 2 and measured["concepts_told"] > 0
    for name in ("slots_told_twice", "slots_with_two_owners", "concepts_told_and_lost", "problems_after_cleaning"):
        assert measured[name] == 0


def test_a_bank_is_listed_and_filled(tmp_path):
    listed = bank.listing(tmp_path / "many", 50, 1)
    assert listed["concepts"] == 50 and listed["call"]["fastest"] < listed["command"]["fastest"]
    assert (
        bank.adding(tmp_path / "added", 3)["load"]["fastest"]
        > bank.adding(tmp_path / "again", 3)["load_from_memory"]["fastest"]
    )


def test_a_row_of_the_merge_engine(monkeypatch):
    monkeypatch.setattr(merge_engine, "shapes_of", lambda model, layers: {"a": (32, 16), "b": (32, 16)})
    row = merge_engine.row_costs(Row("sd15", "attention", "bfloat16", 3, 2), 1)
    assert row["error_to_floor"] < 1.1 and set(row["seconds"]) == {"switch", "floor", "copy", "pristine_loop"}
    monkeypatch.setattr(merge_engine, "MOST_BYTES", 10)
    assert "needs" in merge_engine.row_costs(Row("sd15", "attention", "bfloat16", 3, 2), 1)["left_out"]


def test_the_chart_has_every_contestant():
    times = {"seconds": {"fastest": 0.1, "median": 0.2}}
    drawn = chart([{"dtype": "float32", "floor": times, "switch": times, "diffusers": times}])
    assert "Orthoplex" in drawn and "diffusers" in drawn and "PEFT" not in drawn
