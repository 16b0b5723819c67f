"""Time to switch a set of concepts, beside the machine's floor, peers and version 0.1.

    python -m benchmarks.merge_engine --before CHECKOUT --output results/merge-engine.json

Rounds of all contestants are interleaved in one process; 0.1 has a process of its own in the same run. A switch goes
from one set to another in which one concept is replaced, so that all layers are written. `--part rows|peers|drift` does
a part, and keeps the others that the file has; `--part chart` draws what it has.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.merge_peers import chart, peer_costs
from benchmarks.random_members import DTYPES, WEIGHT, Member, Row, members_of, summary, timed
from orthoplex import vignette
from orthoplex.benchmark.machine import machine
from orthoplex.concepts import load_concept
from orthoplex.files import write_json
from orthoplex.merging import create_algorithm, merge_layers
from orthoplex.models import Base, load_base
from orthoplex.models.weights import FoldedWeights

SAMPLED = 6
"""Layers whose error is measured against float64."""
MOST_BYTES = 13 * 2**30
"""Of weights, originals and factors of one row; larger rows are left out, and named."""


ROWS = [
    *(Row("sd15", "attention", dtype, count, 20) for dtype in DTYPES for count in (1, 4, 15, 64)),
    *(Row("sd15", "attention", dtype, 15, rank) for dtype in DTYPES for rank in (4, 64)),
    *(Row("sd15", "attention", dtype, 15, 20, form) for form in ("blocks", "large") for dtype in DTYPES),
    *(Row("sd15", layers, dtype, 15, 20) for layers in ("cross-attention-kv", "linear") for dtype in DTYPES),
    *(Row("sdxl", layers, dtype, 15, 20) for layers in ("attention", "cross-attention-kv") for dtype in DTYPES),
    *(Row("sdxl", "linear", dtype, 15, 20) for dtype in DTYPES),
]


def shapes_of(model: str, layers: str) -> dict[str, tuple[int, int]]:
    """Return the layers of a denoiser by name, from the library's own class, without weights."""
    from diffusers import UNet2DConditionModel

    from benchmarks.full_size import UNET, UNET_XL

    with torch.device("meta"):
        network = UNet2DConditionModel(**(UNET if model == "sd15" else UNET_XL))
    endings = {"cross-attention-kv": ("attn2.to_k", "attn2.to_v"), "attention": (".attn1.", ".attn2.")}.get(layers)
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    chosen = [
        name
        for name in linear
        if "transformer_blocks" in name and (endings is None or any(ending in name for ending in endings))
    ]
    return {name: (linear[name].out_features, linear[name].in_features) for name in chosen}


def random_layers(
    shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype
) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """Return linear layers of random weights, and copies of these."""
    modules, originals = dict[str, nn.Module](), dict[str, Tensor]()
    generator = torch.Generator().manual_seed(0)
    for name, (out_features, in_features) in shapes.items():
        layer = nn.Linear(in_features, out_features, bias=False, device="meta")
        values = (torch.randn(out_features, in_features, generator=generator) * WEIGHT).to(dtype)
        layer.weight = nn.Parameter(values, requires_grad=False)
        modules[name], originals[name] = layer, values.clone()
    return modules, originals


def row_costs(row: Row, rounds: int) -> dict[str, Any]:
    """Measure one row."""
    shapes, dtype = shapes_of(row.model, row.layers), DTYPES[row.dtype]
    numbers = sum(out_features * in_features for out_features, in_features in shapes.values())
    of_factors = sum(sum(shape) for shape in shapes.values()) * row.rank * (row.concepts + 1)
    needed = 3 * numbers * dtype.itemsize + of_factors * (4 + dtype.itemsize)
    about = {**vars(row), "num_layers": len(shapes), "numbers": numbers}
    if needed > MOST_BYTES:
        return {**about, "left_out": f"needs {needed / 2**30:.0f} GiB"}
    modules, originals = random_layers(shapes, dtype)
    members = members_of(row, shapes, row.concepts + 1)
    engine, algorithm = FoldedWeights(modules), create_algorithm("sum")
    for member in members:
        engine.arranged.arrange(member.layers, dtype, torch.device("cpu"))

    def switch(left_out: int) -> None:
        chosen = [(member, 1.0) for i, member in enumerate(members) if i != left_out]
        engine.switch(merge_layers(algorithm, chosen))

    switch(row.concepts)
    wanted = members[: row.concepts]
    error = errors_of(modules, originals, wanted)
    ups = {name: torch.cat([member.layers[name].up for member in wanted], 1).to(dtype) for name in shapes}
    downs = {name: torch.cat([member.layers[name].down for member in wanted]).to(dtype) for name in shapes}

    def floor() -> None:
        for name, layer in modules.items():
            torch.addmm(originals[name], ups[name], downs[name], out=layer.get_parameter("weight").data)

    def copy() -> None:
        for name, layer in modules.items():
            layer.get_parameter("weight").data.copy_(originals[name])

    def loop() -> None:
        for name, layer in modules.items():
            values = originals[name].float()
            for member in wanted:
                values.addmm_(member.layers[name].up, member.layers[name].down)
            layer.get_parameter("weight").data.copy_(values)

    seconds: dict[str, list[float]] = {name: [] for name in ("switch", "floor", "copy", "pristine_loop")}
    for number in range(rounds):
        seconds["floor"].append(timed(floor))
        seconds["copy"].append(timed(copy))
        seconds["pristine_loop"].append(timed(loop))
        engine.switch({})
        switch(row.concepts)
        seconds["switch"].append(timed(lambda left_out=number % row.concepts: switch(left_out)))
    times = {name: summary(values) for name, values in seconds.items()}
    return {
        **about,
        "seconds": times,
        "switch_to_floor": {key: times["switch"][key] / times["floor"][key] for key in times["switch"]},
        "pristine_loop_to_switch": times["pristine_loop"]["median"] / times["switch"]["median"],
        "bytes_besides_weights": engine.num_bytes,
        "bytes_of_weights": numbers * dtype.itemsize,
        **error,
    }


def errors_of(
    modules: Mapping[str, nn.Module], originals: Mapping[str, Tensor], members: Sequence[Member]
) -> dict[str, float]:
    """Return the error against float64, and that of rounding the float64 sum once, beside the size of the change."""
    error = floor = size = 0.0
    for name in list(modules)[:: max(1, len(modules) // SAMPLED)]:
        change = sum(member.layers[name].up.double() @ member.layers[name].down.double() for member in members)
        assert isinstance(change, Tensor)
        exact, weight = originals[name].double() + change, modules[name].get_parameter("weight")
        error += float((weight.double() - exact).square().sum())
        floor += float((exact.to(weight.dtype).double() - exact).square().sum())
        size += float(change.square().sum())
    return {
        "error": (error / size) ** 0.5,
        "rounding_floor": (floor / size) ** 0.5,
        "error_to_floor": (error / floor) ** 0.5,
    }


def drift(switches: int) -> dict[str, Any]:
    """Switch a blend of the twelve shipped concepts at random, and count the bits that differ from fresh merges."""
    base = load_base("vignette")
    names = [sample.name for sample in vignette.sample_concepts()]
    concepts = {name: load_concept(vignette.concept_file(name, method="orthogonal")) for name in names}
    rng, before = random.Random(0), weights_of(base)
    compared = different = 0
    blend = base.blend(list(concepts.values()), algorithm="sum")
    seconds, kept = [], []
    for number in range(switches):
        chosen = rng.sample(names, rng.randint(1, len(names)))
        strengths = {name: rng.choice((0.5, 1.0)) if name in chosen else 0.0 for name in names}
        seconds.append(timed(lambda strengths=strengths: blend.update(strengths)))
        if number % 50 == 0 or number == switches - 1:
            kept.append((dict(blend), weights_of(base)))
    blend.restore()
    after = weights_of(base)
    left = sum(int((before[name] != after[name]).sum()) for name in before)
    from orthoplex.merging import merge

    for strengths, weights in kept:
        with base.folded(merge([(concepts[name], value) for name, value in strengths.items()], algorithm="sum")):
            fresh = weights_of(base)
        compared += sum(values.numel() for values in fresh.values())
        different += sum(int((fresh[name] != weights[name]).sum()) for name in fresh)
    return {
        "switches": switches,
        "numbers_compared_with_fresh_merges": compared,
        "numbers_that_differ": different,
        "numbers_that_differ_after_restore": left,
        "seconds": summary(seconds),
    }


def weights_of(base: Base) -> dict[str, Tensor]:
    """Return copies of all weights that concepts may change."""
    return {name: layer.weight.detach().clone() for name, layer in base.family.every_layer().items()}


def measured(options: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """Yield the parts that are asked for, as they are done."""
    if options.part in ("all", "drift"):
        yield "drift", drift(options.switches)
    if options.part in ("all", "peers"):
        peers = []
        for dtype in options.dtypes:
            peers.append(peer_costs(dtype, options.rounds, options.before))
            gc.collect()
            yield "peers", peers
    if options.part in ("all", "rows"):
        rows = []
        for row in ROWS:
            if row.dtype in options.dtypes:
                rows.append(row_costs(row, options.rounds))
                gc.collect()
                sys.stderr.write(f"{row}: {rows[-1].get('switch_to_floor', rows[-1].get('left_out'))}\n")
                yield "rows", rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", "rows", "peers", "drift", "chart"), default="all")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--before", type=Path, help="checkout of version 0.1")
    parser.add_argument("--output", type=Path, default=Path("results/merge-engine.json"))
    options = parser.parse_args()
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name, value in measured(options):
        before[name] = value
        command = "python -m benchmarks.merge_engine --before CHECKOUT"
        write_json(options.output, {**before, "command": command, "machine": machine()})
    if "peers" in before:
        options.output.with_suffix(".svg").write_text(chart(before["peers"]), "utf-8")


if __name__ == "__main__":
    main()
