"""How fast the denoiser trains beside other work: `python -m pretraining.speed`.

Trains for a while with one and with two processes of one thread at the lowest priority, alone and beside a test run
that is repeated, and writes samples a second, and how long that test run takes, to `--output`. Compiling is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orthoplex.files import write_json
from pretraining.background import INITIAL, ONE_THREAD

TESTS = (sys.executable, "-m", "pytest", "tests/merging", "-q")


@contextmanager
def training(work: Path, processes: int) -> Iterator[subprocess.Popen]:
    """A training under `work`, ended with all its processes."""
    command = ["nice", "-n", "19", sys.executable, "-m", "pretraining.train", "denoiser", *INITIAL]
    command += ["--device", "cpu", "--threads", "1", "--processes", str(processes), "--work", str(work)]
    command += ["--packed", str(work / "packed"), "--log-every", "2", "--painted-window", "64"]
    with (work / "training.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **ONE_THREAD}, start_new_session=True
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def rows(work: Path) -> list[dict]:
    """The lines of the log under `work`."""
    log = work / "denoiser.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for_lines(work: Path, count: int, process: subprocess.Popen) -> None:
    """Until the log has so many lines.

    Raises:
        RuntimeError: When the training ends before.
    """
    while len(rows(work)) < count:
        if process.poll() is not None:
            raise RuntimeError(f"the training ended; {work / 'training.log'} says why")
        time.sleep(0.5)


def test_runs(seconds: float) -> list[float]:
    """The seconds of each test run, repeated for so long."""
    taken, began = [], time.monotonic()
    while not taken or time.monotonic() - began < seconds:
        start = time.monotonic()
        subprocess.run(TESTS, check=True, capture_output=True, env={**os.environ, **ONE_THREAD})
        taken.append(time.monotonic() - start)
    return taken


def measured(work: Path, processes: int, seconds: float) -> dict:
    """Samples a second alone and beside test runs, and the median seconds of these."""
    with training(work, processes) as process:
        wait_for_lines(work, 3, process)
        found: dict[str, object] = {"processes": processes, "load_of_others": os.getloadavg()[0]}
        for name, tests in (("alone", False), ("beside_tests", True)):
            wait_for_lines(work, 1 + (first := len(rows(work))), process)  # the line that began before
            if tests:
                found["seconds_of_a_test_run"] = round(statistics.median(test_runs(seconds)), 1)
            else:
                time.sleep(seconds)
            wait_for_lines(work, first + 2, process)
            speeds = [row["samples_per_second"] for row in rows(work)[first + 1 :]]  # of as many samples each
            found[f"{name}_samples_per_second"] = round(statistics.harmonic_mean(speeds), 2)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/vignette/next/speed.json"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of every measurement, compiling not counted")
    options = parser.parse_args()
    plain = round(statistics.median(test_runs(options.seconds / 2)), 1)
    ways = []
    for processes in (1, 2):
        work = Path(tempfile.mkdtemp(prefix="speed-"))
        ways.append(measured(work, processes, options.seconds))
        shutil.rmtree(work)
        print(json.dumps(ways[-1]), flush=True)
    told = {"cores": os.cpu_count(), "tests": shlex.join(TESTS[1:]), "seconds_of_a_test_run_alone": plain}
    write_json(options.output, {**told, "seconds": options.seconds, "ways": ways})


if __name__ == "__main__":
    main()
