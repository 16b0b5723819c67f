"""Whole processes of the command line beside those of an earlier checkout: the price of the door, and of a merge.

python -m benchmarks.door --before FOLDER --output results/door.json

A row is the median of all runs; the two checkouts take turns, after a run of each that is not counted. CPU-seconds are
user and system time of the process and its children. A merge is run with an empty home folder (`merge-cold`), so that
nothing is remembered, and with one in which a merge was made before (`merge-warm`). The operating system's own caches
are warm in both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from orthoplex.benchmark.machine import machine
from orthoplex.files import markdown_table, write_json

HERE = Path(__file__).resolve().parents[1]
CONCEPTS = Path("orthoplex/vignette/concepts/orthogonal")
DOORS = {
    "help": ["--help"],
    "version": ["--version"],
    "inspect": ["inspect", str(CONCEPTS / "anna.safetensors")],
    "inspect-json": ["inspect", str(CONCEPTS / "anna.safetensors"), "--json"],
}
"""Case -> its arguments, from the root of a checkout."""
MERGES = ("merge-cold", "merge-warm")


@dataclass(frozen=True)
class Cost:
    """What one process took, in seconds."""

    cpu_seconds: float
    wall_seconds: float


def cost_of(checkout: Path, arguments: Sequence[str], *, home: Path | None = None) -> Cost:
    """Run `python -m orthoplex` in a checkout, to the end.

    Args:
        checkout: The root of a checkout; its package is imported.
        arguments: Of the command line.
        home: The home folder of the process, where it may remember something; None leaves it as it is.

    Raises:
        RuntimeError: When the command fails; with what it said.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if home is not None:
        environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "orthoplex", *arguments], cwd=checkout, env=environment, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise RuntimeError(f"orthoplex {' '.join(arguments)} in {checkout} exits with {process.returncode}: {said}")
    return Cost(used.ru_utime + used.ru_stime, seconds)


def merge_cost(checkout: Path, *, home: Path) -> Cost:
    """Merge the shipped orthogonal concepts of a checkout into a new folder, which is removed afterwards."""
    files = sorted(str(path.relative_to(checkout)) for path in (checkout / CONCEPTS).glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as folder:
        return cost_of(checkout, ["merge", *files, "--output", str(Path(folder) / "merged")], home=home)


def case_cost(case: str, checkout: Path, home: Path) -> Cost:
    """Run one case once; a cold merge begins with an empty home folder."""
    if case not in MERGES:
        return cost_of(checkout, DOORS[case])
    if case == "merge-cold":
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    return merge_cost(checkout, home=home)


def compared(cases: Sequence[str], checkouts: Mapping[str, Path], *, runs: int) -> dict[str, dict[str, list[Cost]]]:
    """Run every case in every checkout in turn; returns case -> checkout -> its runs."""
    found: dict[str, dict[str, list[Cost]]] = {}
    with tempfile.TemporaryDirectory() as homes:
        for case in cases:
            found[case] = {name: [] for name in checkouts}
            for number in range(runs + 1):
                for name, checkout in checkouts.items():
                    cost = case_cost(case, checkout, Path(homes) / case / name)
                    if number > 0:  # the first one brings the files into memory
                        found[case][name].append(cost)
    return found


def summary(found: Mapping[str, Mapping[str, Sequence[Cost]]]) -> dict[str, Any]:
    """Medians of every case, and how many times less the later checkout takes (`before / after`)."""
    rows: dict[str, Any] = {}
    for case, checkouts in found.items():
        medians = {
            name: {
                "cpu_seconds": median(run.cpu_seconds for run in runs),
                "wall_seconds": median(run.wall_seconds for run in runs),
            }
            for name, runs in checkouts.items()
        }
        before, after = medians["before"], medians["after"]
        less = {key: before[key] / after[key] for key in before}
        rows[case] = {**medians, "times_less": less, "runs": {n: list(map(asdict, r)) for n, r in checkouts.items()}}
    return rows


def commit_of(checkout: Path) -> str:
    """The commit that a checkout is at, with a plus sign where its files differ from it."""
    described = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+"]
    return subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def paused(file: Path | None) -> Iterator[None]:
    """Inside, the process whose number stands in a file does nothing; without a file, or such a process, all go on."""
    try:
        number = None if file is None else int(file.read_text())
        if number is not None:
            os.kill(number, signal.SIGSTOP)
    except (FileNotFoundError, ProcessLookupError):
        number = None
    try:
        yield
    finally:
        if number is not None:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(number, signal.SIGCONT)


def main() -> None:
    """Measure, write the file, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="root of the earlier checkout")
    parser.add_argument("--output", type=Path, default=Path("results/door.json"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cases", nargs="+", choices=[*DOORS, *MERGES], default=[*DOORS, *MERGES])
    parser.add_argument("--pause", type=Path, help="file with the number of a process that stands still meanwhile")
    options = parser.parse_args()
    checkouts = {"before": options.before.resolve(), "after": HERE}
    with paused(options.pause):
        rows = summary(compared(options.cases, checkouts, runs=options.runs))
    commits = {name: commit_of(checkout) for name, checkout in checkouts.items()}
    write_json(options.output, {"machine": machine(), "runs": options.runs, "commits": commits, "cases": rows})
    print(_table(rows))


def _table(rows: Mapping[str, Any]) -> str:
    header = ["case", "before, CPU s", "after, CPU s", "times less", "before, wall s", "after, wall s", "times less"]
    lines = [
        [
            case,
            *(
                f"{value:.2f}"
                for key in ("cpu_seconds", "wall_seconds")
                for value in (row["before"][key], row["after"][key], row["times_less"][key])
            ),
        ]
        for case, row in rows.items()
    ]
    return markdown_table(header, lines)


if __name__ == "__main__":
    main()
