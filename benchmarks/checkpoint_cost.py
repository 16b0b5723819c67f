"""What opening a checkpoint file of Stable Diffusion 1.5's size costs beside its folder, and beside diffusers.

Builds a float16 folder of random weights (2.1 GB) and the same weights as one file, then opens them in whole processes,
in turns, each warm in the system's file cache: by diffusers' ``from_single_file`` with the folder's settings, and by
``load_base`` for the first time and with the hash remembered.

``python -m benchmarks.checkpoint_cost --output results/checkpoint-cost.json``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.full_size import full_size_folder

DTYPES = ("float16", "bfloat16")
LOADERS = ("diffusers file", "folder first time", "file first time", "file remembered")
Row = dict[str, float]


def main() -> None:
    """Build, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("work/full-size"), help="Where the base is, or is built.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/checkpoint-cost.json"))
    options = parser.parse_args()
    path = checkpoint_file(full_size_folder(options.folder))
    time.sleep(3)  # hashes of files that were written a moment ago are not remembered
    rows: dict[str, dict[str, list[Row]]] = {dtype: {loader: [] for loader in LOADERS} for dtype in DTYPES}
    with tempfile.TemporaryDirectory() as home:
        opened("file remembered", DTYPES[0], options.folder, path, Path(home))  # fills the caches
        for _ in range(options.rounds):
            for dtype in DTYPES:
                for loader in LOADERS:
                    rows[dtype][loader].append(opened(loader, dtype, options.folder, path, Path(home)))
                    print(dtype, loader, rows[dtype][loader][-1], file=sys.stderr, flush=True)
    medians = {
        dtype: {
            loader: {key: statistics.median(row[key] for row in several) for key in several[0]}
            for loader, several in loaders.items()
        }
        for dtype, loaders in rows.items()
    }
    result = {
        "command": "python -m benchmarks.checkpoint_cost",
        "bytes": path.stat().st_size,
        "rounds": options.rounds,
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "medians": medians,
        "all": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def checkpoint_file(folder: Path) -> Path:
    """Write the folder's weights as one file beside it, unless it is there already."""
    path = folder.with_name(f"{folder.name}.safetensors")
    if not path.is_file():
        from diffusers import StableDiffusionPipeline

        from tests.checkpoints import stable_diffusion_parts, write_checkpoint

        pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16, safety_checker=None)
        write_checkpoint(path, stable_diffusion_parts(pipeline))
    return path


def opened(loader: str, dtype: str, folder: Path, path: Path, home: Path) -> Row:
    """Open once in a process of its own."""
    with tempfile.TemporaryDirectory() as fresh:
        environ = {**os.environ, "HOME": str(home if loader.endswith("remembered") else fresh)}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.checkpoint_cost"]
        command += ["--worker", loader, dtype, str(folder), str(path)]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            text = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{loader}, {dtype}: exit status {process.returncode}")
    return json.loads(text.splitlines()[-1]) | {"peak_mib": usage.ru_maxrss / 1024}


def work(loader: str, dtype_name: str, folder: str, path: str) -> None:
    """Open once, and print seconds and CPU-seconds."""
    dtype = getattr(torch, dtype_name)
    if loader.startswith("diffusers"):
        from diffusers import StableDiffusionPipeline

        began = time.perf_counter(), time.process_time()
        StableDiffusionPipeline.from_single_file(path, config=folder, dtype=dtype, local_files_only=True)
    else:
        from orthoplex.models import load_base

        began = time.perf_counter(), time.process_time()
        if loader.startswith("folder"):
            load_base(folder, dtype=dtype)
        else:
            load_base(path, config=folder, dtype=dtype)
    print(json.dumps({"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
