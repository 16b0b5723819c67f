"""What opening a Stable Diffusion 1.5 sized base costs beside diffusers and beside an earlier version.

Builds a float16 folder of random weights (2.1 GB), then opens it in whole processes, in turns, each warm in the
system's file cache: by diffusers' ``from_pretrained``, by ``load_base`` with the hash remembered, by ``load_base`` for
the first time, and by ``load_base`` of an earlier checkout. Everyone loads the same type.

``python -m benchmarks.load_cost --before CHECKOUT --output results/load-cost.json``
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import diffusers
import torch
import transformers

from benchmarks.full_size import full_size_folder

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("load_worker.py")
DTYPES = ("float16", "float32")
LIMITS = {"remembered": 1.3, "first time": 4.0}
MEMORY_LIMIT = 1.2
Row = dict[str, float]


def main() -> None:
    """Build, measure, and write after every round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("work/full-size"), help="Where the base is, or is built.")
    parser.add_argument("--before", type=Path, help="A checkout of an earlier version.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("results/load-cost.json"))
    options = parser.parse_args()
    full_size_folder(options.folder)
    time.sleep(3)  # hashes of files that were written a moment ago are not remembered
    ways = ["diffusers", "remembered", "first time", *(["before"] if options.before else [])]
    rows: dict[str, dict[str, list[Row]]] = {dtype: defaultdict(list) for dtype in DTYPES}
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as home:
        # The first process reads the files into the system's cache, and fills the cache of hashes.
        loaded("remembered", DTYPES[0], options.folder, options.before, Path(home))
        for turn in range(options.rounds):
            for dtype in DTYPES:
                for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                    rows[dtype][way].append(loaded(way, dtype, options.folder, options.before, Path(home)))
                    print(turn, dtype, way, rows[dtype][way][-1], file=sys.stderr, flush=True)
            loads.append(os.getloadavg()[0])
            result = {
                "command": "python -m benchmarks.load_cost --before CHECKOUT",
                "bytes": sum(path.stat().st_size for path in options.folder.rglob("*.safetensors")),
                "rounds": turn + 1,
                "machine": machine() | {"load": loads},
                "types": {dtype: summary(rows[dtype]) for dtype in DTYPES},
            }
            options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def machine() -> dict[str, object]:
    """On what was measured."""
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def summary(rows: Mapping[str, list[Row]]) -> dict[str, object]:
    """Medians of every way to load, and their ratios to diffusers' medians."""
    medians = {way: {key: statistics.median(row[key] for row in rows[way]) for key in rows[way][0]} for way in rows}
    ratios = {way: {key: medians[way][key] / medians["diffusers"][key] for key in medians[way]} for way in rows}
    within = {
        way: {
            "time": ratios[way]["load_seconds"] <= limit,
            "processor time": ratios[way]["load_cpu_seconds"] <= limit,
            "memory": ratios[way]["peak_mib"] <= MEMORY_LIMIT,
        }
        for way, limit in LIMITS.items()
    }
    return {"medians": medians, "ratios": ratios, "within": within, "all": rows}


def loaded(way: str, dtype: str, folder: Path, before: Path | None, home: Path) -> Row:
    """Load once in a process of its own; the whole process and the call alone are measured."""
    package = before if way == "before" and before is not None else ROOT
    with tempfile.TemporaryDirectory() as fresh:
        place = home if way == "remembered" else Path(fresh)
        environ = {**os.environ, "HOME": str(place), "PYTHONPATH": str(package.resolve())}
        command = [sys.executable, "-W", "ignore", str(WORKER)]
        command += ["diffusers" if way == "diffusers" else "orthoplex", dtype, str(folder)]
        began = time.perf_counter()
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"{way}, {dtype}: exit status {process.returncode}")
        found = json.loads(said.splitlines()[-1])
        if found["package"] and Path(found["package"]).parents[1] != package.resolve():
            sys.exit(f"{way}: {found['package']} was measured, {package} was meant")
        if way == "remembered" and not (place / ".cache" / "orthoplex" / "base-hashes.json").is_file():
            sys.exit("the hash was not remembered")
    return {
        "load_seconds": found["seconds"],
        "load_cpu_seconds": found["cpu_seconds"],
        "process_seconds": seconds,
        "process_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
