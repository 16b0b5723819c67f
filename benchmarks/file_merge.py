"""Truncation of many LoRA files from factors, beside a dense SVD as PEFT makes it; every distinct shape of a family.

    python -m benchmarks.file_merge --output results/file-merge.json

Each distinct shape of the denoiser's linear layers is measured once, and counts as often as the family has it.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import torch

from orthoplex.adapters import LowRank
from orthoplex.benchmark.machine import machine
from orthoplex.concepts.layer_table import layer_table
from orthoplex.files import write_json
from orthoplex.merging import Truncation, truncate


def measure(shape: tuple[int, int], num_files: int, rank: int, target: int) -> dict[str, float]:
    """Return seconds and relative errors of both for one shape."""
    out, width = shape
    generator = torch.Generator().manual_seed(out + width)
    ups = torch.randn(out, num_files * rank, generator=generator).half()
    downs = torch.randn(num_files * rank, width, generator=generator).half()
    change = LowRank(ups, downs)
    begin = time.perf_counter()
    ours = truncate(change, Truncation(rank=target)).change
    middle = time.perf_counter()
    delta = change.delta()
    left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
    dense = (left[:, :target] * sizes[:target]) @ right[:target]
    end = time.perf_counter()
    norm = delta.norm()
    return {
        "ours_seconds": middle - begin,
        "dense_seconds": end - middle,
        "ours_error": float((ours.delta() - delta).norm() / norm),
        "dense_error": float((dense - delta).norm() / norm),
    }


def main() -> None:
    """Measure every shape and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--version", default="sdxl")
    parser.add_argument("--files", type=int, default=15)
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--target", type=int, default=64)
    given = parser.parse_args()
    table = layer_table(given.version)
    if table is None:
        parser.error(f"no table knows {given.version}")
    counts = Counter(
        (shape[0], shape[1])
        for layer, shape in table.versions[given.version].items()
        if len(shape) == 2 and "transformer_blocks" in layer
    )
    shapes = {shape: measure(shape, given.files, given.rank, given.target) for shape in counts}
    totals = {
        name: sum(shapes[shape][name] * count for shape, count in counts.items())
        for name in ("ours_seconds", "dense_seconds")
    }
    rows = [{"shape": list(shape), "layers": counts[shape], **values} for shape, values in shapes.items()]
    settings = {name: value for name, value in vars(given).items() if name != "output"}
    result = {"settings": settings, "machine": machine(), "weighted": totals, "shapes": rows}
    write_json(given.output, result | {"threads": torch.get_num_threads()})
    print(f"{totals['dense_seconds'] / totals['ours_seconds']:.1f} times as fast as a dense SVD")


if __name__ == "__main__":
    main()
