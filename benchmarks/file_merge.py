"""Merging files of SDXL's size: truncation beside PEFT and a dense SVD, exact sums beside a copy of their bytes.

    python -m benchmarks.file_merge --output results/file-merge.json

Each distinct shape of the denoiser's attention and feed-forward layers is measured once, and counts as often as the
model has it. Every job is a process of its own (``benchmarks.file_merge_jobs``), so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.file_merge_jobs import linear_shapes
from orthoplex.benchmark.machine import machine
from orthoplex.files import write_json

ALGORITHMS = ("ties", "dare-ties", "tsv", "iso-c", "knots-ties")
TRUNCATIONS = ("ours", "peft", "dense")


def run_job(*arguments: object) -> dict[str, Any]:
    """Run one job in a process of its own and return its result."""
    command = [sys.executable, "-m", "benchmarks.file_merge_jobs", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def truncations(files: int, rank: int, target: int, layers_version: str) -> dict[str, Any]:
    """Measure every shape in each of three computations; weigh seconds by the count of layers."""
    shapes = linear_shapes(layers_version)
    rows = []
    for (out, width), count in sorted(shapes.items()):
        row: dict[str, Any] = {"shape": [out, width], "layers": count}
        for name in TRUNCATIONS:
            row[name] = run_job("truncate", name, out, width, files, rank, target)
        rows.append(row)
        print(f"{out} x {width}: " + ", ".join(f"{name} {row[name]['seconds']:.3f} s" for name in TRUNCATIONS))
    totals = {name: sum(row["layers"] * row[name]["seconds"] for row in rows) for name in TRUNCATIONS}
    times = {name: totals[name] / totals["ours"] for name in TRUNCATIONS[1:]}
    return {"shapes": rows, "seconds_of_all_layers": totals, "times_as_fast": times}


def concatenation(files: int, rank: int, layers_version: str, folder: Path) -> dict[str, Any]:
    """Merge files exactly, beside reading all of their bytes and writing as many as the merged file has."""
    print(f"writing {files} files")
    run_job("make", folder, files, rank, layers_version)
    merge = [run_job("concatenate", folder, files) for _ in range(2)]
    copy = [run_job("copy", folder, files) for _ in range(2)]
    best = min(merge, key=lambda result: result["seconds"])
    fastest = min(copy, key=lambda result: result["seconds"])
    return {"merge": best, "copy": fastest, "times_a_copy": best["seconds"] / fastest["seconds"]}


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--version", default="sdxl")
    parser.add_argument("--files", type=int, default=15)
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--target", type=int, default=64)
    given = parser.parse_args()
    settings = {name: value for name, value in vars(given).items() if name != "output"}
    result: dict[str, Any] = {
        "command": "python -m benchmarks.file_merge --output results/file-merge.json",
        "settings": settings | {"type": "float16", "factors": "independent normal numbers"},
        "machine": machine() | {"threads": 1, "peft": version("peft")},
    }
    print(shlex.join(sys.argv))
    with tempfile.TemporaryDirectory() as folder:
        result["concatenation"] = concatenation(given.files, given.rank, given.version, Path(folder))
    print(f"exact sum: {result['concatenation']['times_a_copy']:.2f} times a copy of the bytes")
    result["truncation"] = truncations(given.files, given.rank, given.target, given.version)
    for name, times in result["truncation"]["times_as_fast"].items():
        print(f"truncation: {times:.1f} times as fast as {name}")
    largest = max(linear_shapes(given.version), key=lambda shape: shape[0] * shape[1])
    result["algorithms"] = {
        "shape": list(largest),
        **{name: run_job("algorithm", name, *largest, given.files, given.rank) for name in ALGORITHMS},
    }
    write_json(given.output, result)


if __name__ == "__main__":
    main()
