"""The denoiser's training beside other work: `python -m pretraining.background start|stop|status|kill`.

    start    train with one process of one thread at the lowest priority, detached from this terminal, or go on
    stop     end it; what it learned since its last checkpoint, a few minutes, is lost
    status   how far it is
    kill     kill it at once (SIGKILL), start it again, and write both sides of it to the record

Its process number is kept in `training.pid` under `--work`, all that it prints in `training.log`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from orthoplex.files import write_json, write_text
from pretraining.checkpoint import kept_number
from pretraining.packing import LOG, log_until

COMMAND = ("-m", "pretraining.train", "denoiser", "--device", "cpu", "--threads", "1")
INITIAL = ("--initial", "orthoplex/vignette/base")
#: one thread for all that computes, compiles and reads words
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def running(work: Path) -> psutil.Process | None:
    """The training that was started under `work`, if it runs."""
    file = work / "training.pid"
    try:
        process = psutil.Process(int(file.read_text())) if file.exists() else None
        return process if process and "pretraining.train" in _command(process) else None
    except psutil.Error:
        return None


def _command(process: psutil.Process) -> list[str]:
    """The command line of a process; it is empty for a moment while ``nice`` becomes the training."""
    for _ in range(20):
        if command := process.cmdline():
            return command
        time.sleep(0.05)
    return []


def start(work: Path, arguments: list[str]) -> int:
    """Start the training, or go on with it; returns its process number.

    Raises:
        RuntimeError: When it runs already.
    """
    if (process := running(work)) is not None:
        raise RuntimeError(f"process {process.pid} trains under {work} already; stop it first")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "training.log").open("a") as log:
        process = subprocess.Popen(
            ["nice", "-n", "19", sys.executable, *COMMAND, *INITIAL, "--work", str(work), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        )
    give_way(process.pid)
    write_text(work / "training.pid", f"{process.pid}\n")
    process.returncode = 0  # it outlives this program, which does not wait for it
    return process.pid


def give_way(pid: int) -> None:
    """Give the session of a process the lowest priority, too, where the system has such a thing.

    Linux shares the processors between sessions first (autogroups), and only then, inside each, by niceness: a session
    of one process gets as much as one of ten, however nice the process is.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("19\n")


def end(work: Path, by: signal.Signals) -> int:
    """Send a signal to the training and wait for its end; returns its process number.

    Raises:
        RuntimeError: When it does not run.
    """
    process = running(work)
    if process is None:
        raise RuntimeError(f"no training runs under {work}; allowed is one that {work / 'training.pid'} names")
    process.send_signal(by)
    process.wait()
    return process.pid


def lines(work: Path) -> list[dict]:
    """The log of the training; a line that is being written is left out."""
    return [json.loads(line) for line in log_until(work / LOG, sys.maxsize).splitlines()]


def kill_and_resume(work: Path, arguments: list[str], record: Path, patience: float = 1800) -> dict:
    """Kill the training, start it again, wait for its first line, and append what happened to the record.

    Raises:
        RuntimeError: When it does not run, or no line comes within `patience` seconds.
    """
    before = lines(work)
    end(work, signal.SIGKILL)
    kept, began = kept_number(work / "denoiser.pt", "samples"), time.monotonic()
    start(work, arguments)
    cut, after = False, []
    while not (cut and after):  # the log is first cut back to the checkpoint, then goes on
        if running(work) is None or time.monotonic() - began > patience:
            raise RuntimeError(f"the training does not go on; {work / 'training.log'} says why")
        time.sleep(0.5)
        after = [row for row in lines(work) if row["samples"] > kept]
        cut = cut or not after
    event = {
        "signal": "SIGKILL",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples_in_checkpoint": kept,
        "last_lines_before": before[-2:],
        "first_line_after": after[0],
        "log_lines_up_to_the_checkpoint": sum(row["samples"] <= kept for row in lines(work)),
        "seconds_until_the_first_line": round(time.monotonic() - began, 1),
    }
    told = json.loads(record.read_text()) if record.exists() else {"kills": []}
    write_json(record, {**told, "kills": [*told["kills"], event]})
    return event


def main() -> None:
    """Command line; what it does not know goes to `pretraining.train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("start", "stop", "status", "kill"))
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--record", type=Path, default=Path("results/vignette/next/record.json"))
    options, arguments = parser.parse_known_args()
    if options.do == "start":
        print(f"process {start(options.work, arguments)}; it writes to {options.work / 'training.log'}")
    elif options.do == "stop":
        print(f"process {end(options.work, signal.SIGTERM)} has ended")
    elif options.do == "kill":
        print(json.dumps(kill_and_resume(options.work, arguments, options.record), indent=1))
    else:
        process, rows = running(options.work), lines(options.work)
        print(f"process {process.pid}" if process else "not running", json.dumps(rows[-1]) if rows else "no line yet")


if __name__ == "__main__":
    main()
