"""The measurement of the door: what it runs, counts and computes."""

import os
import signal
import subprocess
import sys

import pytest

from benchmarks import door
from benchmarks.door import HERE, Cost, compared, cost_of, paused, summary


def test_a_process_is_measured():
    cost = cost_of(HERE, ["--version"])
    assert 0 < cost.cpu_seconds < 60 and cost.wall_seconds > 0


def test_a_process_that_fails_is_no_measurement():
    with pytest.raises(
        RuntimeError, match="inspect nowhere in .* exits with 2: Error: nowhere.safetensors: there is no"
    ):
        cost_of(HERE, ["inspect", "nowhere"])


def test_checkouts_take_turns_and_the_first_run_is_not_counted(monkeypatch, tmp_path):
    calls = []

    def stand_in(case, checkout, home):
        calls.append((case, checkout.name, home.parent.name, home.name))
        return Cost(float(len(calls)), 1.0)

    monkeypatch.setattr(door, "case_cost", stand_in)
    found = compared(["help"], {"before": tmp_path / "a", "after": tmp_path / "b"}, runs=2)
    assert [name for _, name, _, _ in calls] == ["a", "b"] * 3
    assert {home for *_, home in calls} == {"before", "after"}
    assert [cost.cpu_seconds for cost in found["help"]["before"]] == [3.0, 5.0]


@pytest.mark.parametrize(("case", "kept"), [("merge-cold", False), ("merge-warm", True)])
def test_a_cold_merge_begins_without_anything_remembered(monkeypatch, tmp_path, case, kept):
    home = tmp_path / "home"
    home.mkdir()
    (home / "remembered").write_text("")
    seen = []
    monkeypatch.setattr(door, "merge_cost", lambda checkout, *, home: seen.append((home / "remembered").exists()))
    door.case_cost(case, HERE, home)
    assert seen == [kept]


def test_medians_and_their_ratio():
    before, after = [Cost(8.0, 9.0), Cost(10.0, 12.0), Cost(99.0, 99.0)], [Cost(0.5, 1.0)]
    row = summary({"help": {"before": before, "after": after}})["help"]
    assert row["before"] == {"cpu_seconds": 10.0, "wall_seconds": 12.0}
    assert row["times_less"] == {"cpu_seconds": 20.0, "wall_seconds": 12.0}
    assert row["runs"]["after"] == [{"cpu_seconds": 0.5, "wall_seconds": 1.0}]


def test_a_process_stands_still_meanwhile_and_goes_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    file = tmp_path / "number"
    file.write_text(str(process.pid))
    try:
        with pytest.raises(ZeroDivisionError), paused(file):
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            raise ZeroDivisionError
        assert os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1])
        with paused(file):  # whoever ends meanwhile is not woken
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        process.kill()
        process.wait()
    with paused(file), paused(tmp_path / "nowhere"), paused(None):
        pass
