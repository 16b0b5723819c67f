"""A training in the background is started once, ended by its own number alone, and its death is recorded."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from pretraining import background
from pretraining.background import end, kill_and_resume, running, start

#: stands for a training: cuts its log back to the checkpoint's samples, and goes on
TRAINING = """
import json, sys, time
from pathlib import Path
work = Path(sys.argv[sys.argv.index("--work") + 1])
log = work / "denoiser.jsonl"
loss = 0.1 if log.exists() else 0.2
time.sleep(1)
log.write_text(json.dumps({"samples": 64, "loss": 0.2}) + "\\n")
time.sleep(2)
with log.open("a") as file:
    file.write(json.dumps({"samples": 96, "loss": loss}) + "\\n")
print(sys.argv[1:], flush=True)
time.sleep(600)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(background, "COMMAND", ("-c", TRAINING, "pretraining.train"))
    torch.save({"samples": 64}, tmp_path / "denoiser.pt")
    return tmp_path


def wait_for(work: Path) -> None:
    deadline = time.monotonic() + 60
    while not (work / "training.log").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_it_is_started_once_and_ended(work: Path) -> None:
    number = start(work, ["--samples", "7"])
    try:
        wait_for(work)
        process = running(work)
        assert process is not None and process.pid == number and process.nice() == min(19, os.nice(0) + 19)
        assert "'--samples', '7'" in (work / "training.log").read_text()
        assert process.environ()["OMP_NUM_THREADS"] == "1"
        with pytest.raises(RuntimeError, match=f"process {number} trains under .* already; stop it first"):
            start(work, [])
    finally:
        assert end(work, signal.SIGTERM) == number
    assert running(work) is None
    with pytest.raises(RuntimeError, match=r"no training runs under .*; allowed is one that .*training.pid names"):
        end(work, signal.SIGTERM)


def test_its_session_gives_way_to_others_where_the_system_shares_by_session(work: Path) -> None:
    pid = start(work, [])
    try:
        group = Path(f"/proc/{pid}/autogroup")
        if not group.is_file():
            pytest.skip("the system does not share its processors by session")
        assert group.read_text().endswith("nice 19\n")
    finally:
        end(work, signal.SIGTERM)


def test_a_number_that_another_program_has_by_now_is_left_alone(work: Path) -> None:
    (work / "training.pid").write_text(f"{background.os.getpid()}\n")
    assert running(work) is None
    with pytest.raises(RuntimeError, match="no training runs"):
        end(work, signal.SIGKILL)


def test_a_kill_and_its_resume_are_recorded(work: Path) -> None:
    first = start(work, [])
    try:
        wait_for(work)
        event = kill_and_resume(work, [], work / "record.json", patience=60)
        process = running(work)
        assert process is not None and process.pid != first
        assert event["samples_in_checkpoint"] == 64
        assert [row["samples"] for row in event["last_lines_before"]] == [64, 96]
        assert event["first_line_after"] == {"samples": 96, "loss": 0.1}  # not the one from before the kill
        assert json.loads((work / "record.json").read_text()) == {"kills": [event]}
    finally:
        end(work, signal.SIGKILL)
