"""A switch of a blend beside diffusers, PEFT and version 0.1, from the same concept files; see `merge_engine`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.merge_cost import Contest, linears
from benchmarks.random_members import DTYPES, Row, members_of, summary, timed
from orthoplex.benchmark.plots import bars
from orthoplex.benchmark.targets import RANDOM_SD15, load_target
from orthoplex.concepts import Concept, Manifest, load_concept, save_concept
from orthoplex.evaluation import Interval
from orthoplex.models import Base
from orthoplex.models.quiet import quiet


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
