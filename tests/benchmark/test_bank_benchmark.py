"""The benchmark of banks."""

import json

import pytest

from benchmarks import bank


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
