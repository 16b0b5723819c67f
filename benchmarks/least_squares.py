"""What a data-aware merge costs, cold and warm, beside version 0.1.

    python -m benchmarks.least_squares --before CHECKOUT --output results/least-squares.json

Three cases: the twelve shipped concepts on the embedded base; two random concepts of keys and values on a base of
Stable Diffusion 1.5's size; fifteen of Stable Diffusion XL's shapes, without any base. Cold is the first merge of a
process with an empty cache folder, warm are the next ones. Version 0.1 does the first two in processes of its own, in
the same run.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.merge_engine import Member, shapes_of, summary
from orthoplex.adapters import LowRank
from orthoplex.benchmark.machine import machine
from orthoplex.concepts import Stack
from orthoplex.files import write_json
from orthoplex.merging import InputGrams, RowGram, create_algorithm, merge_layers

WORKER = """
import json, sys, time, torch
from pathlib import Path
case, rounds, folder, output = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
try:
    from orthoplex.activations import merge_for, with_inputs
except ImportError:
    from orthoplex.training import merge_on as merge_for
    from orthoplex.training import with_inputs
from orthoplex import vignette
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, Manifest, load_concept
from orthoplex.models import load_base
if case == "shipped":
    base = load_base("vignette")
    concepts = [load_concept(vignette.concept_file(s.name, method="orthogonal")) for s in vignette.sample_concepts()]
else:
    base = load_base(folder)
    try:
        layers = {n: l.linear for n, l in base.family.layers("cross-attention-kv").items()}
    except AttributeError:
        layers = base.linear_layers("cross-attention-kv")
    concepts = []
    for number, name in enumerate(("anna", "rex")):
        generator = torch.Generator().manual_seed(number)
        changes = {
            n: LowRank(
                0.0002 * torch.randn(l.out_features, 4, generator=generator),
                torch.randn(4, l.in_features, generator=generator) / 2,
            )
            for n, l in layers.items()
        }
        manifest = Manifest(
            name=name, kind="person", class_word="person", trigger=name, base=base.identity, method="lora"
        )
        concepts.append(with_inputs(base, Concept(manifest, changes)))
pairs = [(concept, 1.0) for concept in concepts]
seconds, cpu = [], []
for _ in range(rounds + 1):
    start, used = time.perf_counter(), time.process_time()
    merged = merge_for(base, pairs)
    seconds.append(time.perf_counter() - start)
    cpu.append(time.process_time() - used)
torch.save({layer: (stack.up, stack.down, stack.delta()) for layer, stack in list(merged.layers.items())[:6]}, output)
print(json.dumps([seconds, cpu, merged.recipe.algorithm if not isinstance(merged.recipe, dict) else "as it chose"]))
"""
"""Merges as the command line does, in this version or an older one."""


def worker(case: str, rounds: int, folder: Path, package: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the times of one case in a process with an empty cache, and some of the changes that it made."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PYTHONPATH": str(package.resolve()), "XDG_CACHE_HOME": home, "HOME": home}
        output = Path(home) / "changes.pt"
        command = [sys.executable, "-c", WORKER, case, str(rounds), str(folder), str(output)]
        done = subprocess.run(command, check=True, env=environment, cwd=home, capture_output=True, text=True)
        seconds, cpu, algorithm = json.loads(done.stdout.splitlines()[-1])
        changes = torch.load(output)
    times = {"cold": seconds[0], "warm": summary(seconds[1:]), "warm_cpu_seconds": statistics.median(cpu[1:])}
    return {**times, "algorithm": algorithm}, changes


def compared(case: str, rounds: int, folder: Path, before: Path | None) -> dict[str, Any]:
    """Measure one case here and in version 0.1, and say how far the changes are apart."""
    ours, changes = worker(case, rounds, folder, Path(__file__).parent.parent)
    if before is None:
        return {"ours": ours}
    theirs, old = worker(case, rounds, folder, before)
    apart = max(float((changes[layer][2] - old[layer][2]).norm() / old[layer][2].norm()) for layer in changes)
    return {
        "ours": ours,
        "version_0_1": theirs,
        "warm_ratio": theirs["warm"]["median"] / ours["warm"]["median"],
        "cold_ratio": theirs["cold"] / ours["cold"],
        "relative_difference_of_changes": apart,
    }


def sdxl_shapes(rounds: int, concepts: int = 15, rank: int = 20, rows: int = 100) -> dict[str, Any]:
    """Merge factors of Stable Diffusion XL's keys and values; compare some layers with one dense solve each."""
    shapes = shapes_of("sdxl", "cross-attention-kv")
    members, inputs = [], {}
    for number in range(concepts):
        generator = torch.Generator().manual_seed(number)
        layers = {
            name: LowRank(
                torch.randn(out_features, rank, generator=generator), torch.randn(rank, width, generator=generator)
            )
            for name, (out_features, width) in shapes.items()
        }
        members.append((Member(f"c{number:02d}", layers), 1.0))
        inputs[f"c{number:02d}"] = torch.randn(rows, 2048, generator=generator).half()
    algorithm, seconds = create_algorithm("least-squares"), []
    merged: dict[str, Stack] = {}
    for _ in range(rounds + 1):
        started = time.perf_counter()
        grams = {owner: dict.fromkeys(shapes, RowGram(own)) for owner, own in inputs.items()}
        merged = merge_layers(algorithm, members, InputGrams(grams))
        seconds.append(time.perf_counter() - started)
    apart = max(
        difference(merged[layer], [member for member, _ in members], inputs, layer) for layer in list(shapes)[:2]
    )
    times = {"cold": seconds[0], "warm": summary(seconds[1:])}
    return {
        **times,
        "layers": len(shapes),
        "concepts": concepts,
        "rank": rank,
        "rows": rows,
        "relative_difference": apart,
    }


def difference(merged: Stack, members: Sequence[Member], inputs: dict[str, Tensor], layer: str) -> float:
    """Return how far a layer's change is from one dense float64 solve."""
    grams = {owner: own.double().T @ own.double() for owner, own in inputs.items()}
    total = torch.stack(list(grams.values())).sum(0)
    damped = total + 1e-4 * total.diagonal().mean() * torch.eye(len(total), dtype=torch.float64)
    wanted = torch.cat([member.layers[layer].down.double() @ grams[member.name] for member in members])
    exact = torch.linalg.solve(damped, wanted.T).T
    ups = torch.cat([member.layers[layer].up.double() for member in members], 1)
    return float((ups @ (merged.down.double() - exact)).norm() / (ups @ exact).norm())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--before", type=Path, help="checkout of version 0.1")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "random-sd15", help="of 2 GB")
    parser.add_argument("--cases", nargs="+", default=["shipped", "sd15", "sdxl"])
    parser.add_argument("--output", type=Path, default=Path("results/least-squares.json"))
    options = parser.parse_args()
    measured: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    for case in options.cases:
        if case == "sdxl":
            measured[case] = sdxl_shapes(max(1, options.rounds // 3))
        elif case == "shipped":
            measured[case] = compared(case, options.rounds, options.folder, options.before)
        else:
            from benchmarks.full_size import full_size_folder

            folder = full_size_folder(options.folder)
            measured[case] = compared(case, max(1, options.rounds // 3), folder, options.before)
        command = "python -m benchmarks.least_squares --before CHECKOUT"
        write_json(options.output, {**measured, "command": command, "machine": machine()})
        sys.stdout.write(f"{case}: {measured[case]}\n")


if __name__ == "__main__":
    main()
