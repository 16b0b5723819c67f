"""The benchmarks of live sets, banks and the merge engine do what they say, in small."""

from __future__ import annotations

import json

import pytest

from benchmarks import bank, live, merge_engine
from benchmarks.merge_peers import chart
from benchmarks.random_members import Row
from orthoplex import vignette
from orthoplex.concepts import load_concept
from orthoplex.models import load_base

ANNA = load_concept(vignette.concept_file("anna", method="orthogonal"))


def test_growth_is_the_slope_after_the_first_third():
    memory = [(0.0, 0), (60.0, 500), (120.0, 700), (180.0, 900)]
    assert live.growth(memory) == pytest.approx(200)
    assert live.growth(memory[:1]) is None


@pytest.mark.slow
def test_every_picture_is_compared_and_the_report_is_whole(tmp_path):
    output = tmp_path / "live.json"
    sizes = ["--seconds", "2", "--threads", "3", "--sets", "3", "--live", "1", "--reading", "0.5"]
    live.main([*sizes, "--output", str(output)])
    report = json.loads(output.read_text())
    assert report["wrong"] == 0 and report["outcomes"]["asked without the lock"] > 0
    assert report["pictures"] == report["outcomes"]["right"] == report["switches"] > 0
    assert report["pictures_that_differ"] == 3 and len(report["resident_bytes"]) >= 3
    assert report["live"] == {"pictures": 1, "changed_before_the_last_step": 1, "sets_as_asked": 1, "errors": []}


@pytest.mark.slow
def test_a_picture_of_another_set_is_wrong_and_an_error_is_an_outcome():
    base, pool = load_base("vignette"), [({"anna": 1.0}, f"a photo of {ANNA.manifest.trigger}")]
    (expected,) = live.fresh_pictures({"anna": ANNA}, pool)
    with base.blend([ANNA], algorithm="sum") as blend:
        weaker = [({"anna": 0.5}, pool[0][1])]
        outcomes = live.run(live.Scene(base, blend, ["anna"], weaker, [expected]), 0.5, 1, 1.0).outcomes
        assert "wrong" in outcomes and "right" not in outcomes
    outcomes = live.run(live.Scene(base, blend, ["anna"], pool, [expected]), 0.2, 1, 1.0).outcomes
    assert outcomes and all(outcome.startswith("error: ConfigurationError: concept 'anna'") for outcome in outcomes)


@pytest.mark.slow
def test_listing_adding_and_killing_are_reported(tmp_path):
    output = tmp_path / "bank.json"
    bank.main(["--concepts", "50", "--added", "5", "--kills", "2", "--rounds", "1", "--output", str(output)])
    report = json.loads(output.read_text())
    assert report["listing"]["concepts"] == 50
    assert all(report["listing"][name]["fastest"] > 0 for name in ("open", "call", "command", "shortest_command"))
    assert report["adding"]["added_a_second"] > 0
    torture = report["torture"]
    assert torture["kills"] == 2 and torture["slots_told"] >= torture["concepts_told"] > 0
    assert torture["concepts_told_to_the_steady_writer"] > 0 and torture["slots_told_to_killed_writers"] >= 2
    wrong = ("slots_told_twice", "slots_with_two_owners", "concepts_told_and_lost", "concepts_of_other_content")
    assert {torture[name] for name in (*wrong, "other_problems", "problems_after_cleaning")} == {0}


def test_a_writer_that_ends_by_itself_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(bank, "WORKER", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="writer w[01] ended by itself with exit code 3"):
        bank.torture(tmp_path, kills=1)


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
