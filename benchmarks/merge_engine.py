"""Time to switch a set of concepts, beside the machine's floor, peers and version 0.1.

    python -m benchmarks.merge_engine --before CHECKOUT --output results/merge-engine.json

Rounds of all contestants are interleaved in one process; 0.1 has a process of its own in the same run. A switch goes
from one set to another in which one concept is replaced, so that all layers are written. `--part rows|peers|drift` does
a part, and keeps the others that the file has.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.merge_cost import Contest, linears
from orthoplex import vignette
from orthoplex.adapters import LowRank
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.plots import bars
from orthoplex.benchmark.targets import RANDOM_SD15, load_target
from orthoplex.concepts import Concept, Manifest, load_concept, save_concept
from orthoplex.evaluation import Interval
from orthoplex.files import write_json
from orthoplex.merging import create_algorithm, merge_layers
from orthoplex.models import Base, load_base
from orthoplex.models.quiet import quiet
from orthoplex.models.weights import FoldedWeights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHT, USUAL, LARGE = 0.02, 0.01, 0.2
"""Of a random weight, and of a concept's change beside it; LoRA files change weights by a few hundredths."""
SAMPLED = 6
"""Layers whose error is measured against float64."""
MOST_BYTES = 13 * 2**30
"""Of weights, originals and factors of one row; larger rows are left out, and named."""


@dataclass(frozen=True)
class Row:
    """What is measured: concepts of a rank in some layers of a model."""

    model: str
    layers: str
    dtype: str
    concepts: int
    rank: int
    form: str = "dense"


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


@dataclass
class Member:
    """A concept of random numbers."""

    name: str
    layers: dict[str, LowRank]

    @property
    def content_hash(self) -> str:
        """Its name."""
        return self.name


def members_of(row: Row, shapes: Mapping[str, tuple[int, int]], count: int) -> list[Member]:
    """Return concepts of random numbers; in blocks, each changes a part of the outputs that no other does."""
    members = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        layers = {}
        for name, (out_features, in_features) in shapes.items():
            size = LARGE if row.form == "large" else USUAL
            up = torch.randn(out_features, row.rank, generator=generator) * WEIGHT * size
            down = torch.randn(row.rank, in_features, generator=generator) / row.rank**0.5
            if row.form == "blocks":
                size = out_features // (count + 1)
                mask = torch.zeros(out_features, 1)
                mask[number * size : (number + 1) * size] = 1
                up = up * mask
            layers[name] = LowRank(up, down)
        members.append(Member(f"c{number:02d}", layers))
    return members


def timed(action: Callable[[], object]) -> float:
    """Return the seconds of an action."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return the fastest and the median."""
    return {"fastest": min(seconds), "median": statistics.median(seconds)}


def row_costs(row: Row, rounds: int) -> dict[str, Any]:
    """Measure one row."""
    shapes, dtype = shapes_of(row.model, row.layers), DTYPES[row.dtype]
    numbers = sum(out_features * in_features for out_features, in_features in shapes.values())
    of_factors = sum(sum(shape) for shape in shapes.values()) * row.rank * (row.concepts + 1)
    needed = 3 * numbers * dtype.itemsize + of_factors * (4 + dtype.itemsize)
    about = {**vars(row), "num_layers": len(shapes), "numbers": numbers}
    if needed > MOST_BYTES:
        return {**about, "left_out": f"needs {needed / 2**30:.0f} GiB"}
    modules, originals = {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, (out_features, in_features) in shapes.items():
        layer = nn.Linear(in_features, out_features, bias=False, device="meta")
        values = (torch.randn(out_features, in_features, generator=generator) * WEIGHT).to(dtype)
        layer.weight = nn.Parameter(values, requires_grad=False)
        modules[name], originals[name] = layer, values.clone()
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
            torch.addmm(originals[name], ups[name], downs[name], out=layer.weight.data)

    def copy() -> None:
        for name, layer in modules.items():
            layer.weight.data.copy_(originals[name])

    def loop() -> None:
        for name, layer in modules.items():
            values = originals[name].float()
            for member in wanted:
                values.addmm_(member.layers[name].up, member.layers[name].down)
            layer.weight.data.copy_(values)

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


def peer_costs(dtype: str, rounds: int, before: Path | None) -> dict[str, Any]:
    """Measure 15 concepts of rank 20 in Stable Diffusion 1.5's attention: a blend beside peers, from the same files."""
    base = load_target(RANDOM_SD15, dtype=DTYPES[dtype])
    layers = linears(base, "attention")
    with tempfile.TemporaryDirectory() as folder:
        files = concept_files(base, layers, Path(folder))
        contest = Contest(base, files[:15], layers)
        ours = blend_costs(base, files, contest, rounds)
        theirs = diffusers_costs(base, files, contest, rounds)
        rows = {**ours, **theirs}
        if before is not None:
            rows["version_0_1"] = before_costs(before, files[:15], dtype, rounds)
    switched, fused = rows["switch"]["seconds"], rows["diffusers"]["seconds"]
    ratios = {key: fused[key] / switched[key] for key in switched}
    return {"dtype": dtype, **rows, "diffusers_to_switch": ratios, "rounding_floor": contest.rounding_floor()}


def concept_files(base: Base, layers: Mapping[str, nn.Linear], folder: Path) -> list[Path]:
    """Write sixteen concept files; every contestant reads fifteen of them at a time."""
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    paths = []
    for member in members_of(Row("sd15", "attention", "float32", 15, 20), shapes, 16):
        about = {"name": member.name, "kind": "other", "class_word": "thing", "trigger": f"<{member.name}>"}
        manifest = Manifest(**about, base=base.identity, method="lora")
        paths.append(folder / f"{member.name}.safetensors")
        save_concept(Concept(manifest, member.layers), paths[-1])
    return paths


def blend_costs(base: Base, files: Sequence[Path], contest: Contest, rounds: int) -> dict[str, Any]:
    """Time switches of a blend, and fresh folds; and look at what they leave."""
    concepts = [load_concept(file, base=base.identity) for file in files]
    names = [concept.name for concept in concepts]
    made = timed(lambda: base.blend(concepts, algorithm="sum").restore())
    dtype = base.dtype
    ups = {name: torch.cat([one.layers[name].up for one in concepts[:15]], 1).to(dtype) for name in contest.layers}
    downs = {name: torch.cat([one.layers[name].down for one in concepts[:15]]).to(dtype) for name in contest.layers}
    outputs = {name: values.clone() for name, values in contest.original.items()}

    def floor() -> None:
        for name, values in contest.original.items():
            torch.addmm(values, ups[name], downs[name], out=outputs[name])

    switches, strengths, floors = [], [], []
    with base.blend(concepts, algorithm="sum") as blend:
        blend.only(*names[:15])
        error = contest.merged_error()
        for number in range(2 * rounds):
            chosen = [name for i, name in enumerate(names) if i != number % 15]
            switches.append(timed(lambda chosen=chosen: blend.only(*chosen)))
            blend.only(*names[:15])
            strengths.append(timed(lambda: blend.update({names[0]: 0.7})))
            blend.update({names[0]: 1.0})
            floors.append(timed(floor))
        num_bytes = blend.num_bytes
    changed, largest = contest.undo_difference()
    left = {"error": error, "changed_by_undo": changed, "undo_error": largest}
    times, limits = summary(switches), summary(floors)
    return {
        "floor": {"seconds": limits},
        "switch_to_floor": {key: times[key] / limits[key] for key in times},
        "switch": {"seconds": times, "seconds_made": made, "bytes_besides_weights": num_bytes, **left},
        "one_strength": {"seconds": summary(strengths)},
    }


def diffusers_costs(base: Base, files: Sequence[Path], contest: Contest, rounds: int) -> dict[str, Any]:
    """Time diffusers' unfuse and fuse of another set, and PEFT's unmerge and merge of single adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    pipeline: Any = base.pipeline
    names = [file.stem for file in files]
    fused, merged = [], []
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file, name in zip(files, names, strict=True):
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)

        def fuse(chosen: Sequence[str]) -> None:
            pipeline.set_adapters(list(chosen), [1.0] * len(chosen))
            pipeline.fuse_lora(adapter_names=list(chosen))

        def switch(chosen: Sequence[str]) -> None:
            pipeline.unfuse_lora()
            fuse(chosen)

        fuse(names[:15])
        error = contest.merged_error()
        for number in range(rounds):
            chosen = [name for i, name in enumerate(names) if i != number % 15]
            fused.append(timed(lambda chosen=chosen: switch(chosen)))
        pipeline.unfuse_lora()
        changed, largest = contest.undo_difference()
        tuned = [module for module in pipeline.unet.modules() if isinstance(module, BaseTunerLayer)]

        def merge_again(chosen: list[str]) -> None:
            for module in tuned:
                module.unmerge()
                module.merge(adapter_names=chosen)

        merge_again(names[:15])
        for number in range(rounds):
            chosen = [name for i, name in enumerate(names) if i != number % 15]
            merged.append(timed(lambda chosen=chosen: merge_again(chosen)))
        for module in tuned:
            module.unmerge()
        contest.undo_difference()
        pipeline.unload_lora_weights()
    left = {"error": error, "changed_by_undo": changed, "undo_error": largest}
    return {"diffusers": {"seconds": summary(fused), **left}, "peft": {"seconds": summary(merged)}}


BEFORE = """
import json, sys, time, torch
from pathlib import Path
from orthoplex.benchmark.targets import load_target
from orthoplex.concepts import Concept, Manifest, load_concept, save_concept
from orthoplex.merging import merge
base = load_target("sd15", dtype=getattr(torch, sys.argv[1]))
concepts = [(load_concept(Path(path)), 1.0) for path in sys.argv[3:]]
folds, undos = [], []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    undo = base.fold(merge(concepts, algorithm="sum"))
    folds.append(time.perf_counter() - start)
    start = time.perf_counter()
    undo.restore()
    undos.append(time.perf_counter() - start)
print(json.dumps([first + second for first, second in zip(folds, undos)]))
"""
"""A switch of version 0.1: restore, and fold the other set."""


def before_costs(checkout: Path, files: Sequence[Path], dtype: str, rounds: int) -> dict[str, Any]:
    """Time version 0.1 in a process of its own, with concepts of random numbers that it makes itself."""
    with tempfile.TemporaryDirectory() as folder:
        code = "from pathlib import Path; import sys; from orthoplex.benchmark import merge_cost as m\n"
        code += "base = m.load_target('sd15')\n"
        code += "settings = m.MergeSettings('sd15', 15, 20)\n"
        code += "m.random_concepts(base, settings, Path(sys.argv[1]))"
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        subprocess.run(
            [sys.executable, "-c", code, folder], check=True, env=environment, cwd=folder, capture_output=True
        )
        paths = sorted(Path(folder).glob("*.safetensors"))
        command = [sys.executable, "-c", BEFORE, dtype, str(rounds), *map(str, paths)]
        done = subprocess.run(command, check=True, env=environment, cwd=folder, capture_output=True, text=True)
    return {"seconds": summary(json.loads(done.stdout.splitlines()[-1]))}


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


def chart(peers: Sequence[Mapping[str, Any]]) -> str:
    """Return how much longer than the floor a switch takes, by type of weights and contestant, as SVG."""
    names = {"switch": "Orthoplex", "version_0_1": "version 0.1", "peft": "PEFT", "diffusers": "diffusers"}
    groups = {}
    for row in peers:
        floor = row["floor"]["seconds"]["fastest"]
        groups[row["dtype"]] = {
            shown: Interval(*(row[name]["seconds"][key] / floor for key in ("median", "fastest", "median")))
            for name, shown in names.items()
            if name in row
        }
    title = (
        "Seconds to switch to another set of 15 concepts, 1 is the machine's floor (Stable Diffusion 1.5, attention)"
    )
    return bars(groups, title=title, reference=1)


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
    for name, value in (("peers", before.get("peers", [])),) if options.part == "chart" else measured(options):
        before[name] = value
        command = "python -m benchmarks.merge_engine --before CHECKOUT"
        write_json(options.output, {**before, "command": command, "machine": machine()})
        if "peers" in before:
            options.output.with_suffix(".svg").write_text(chart(before["peers"]), "utf-8")


if __name__ == "__main__":
    main()
