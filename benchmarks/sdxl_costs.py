"""What a Stable Diffusion XL sized base costs: to load, and a training step beside PEFT's LoRA.

Weights are random, 2.6 billion of them in the denoiser; no time or memory depends on their values.

**Loading**: whole processes in turns, the system's file cache warm, one type: diffusers' ``from_pretrained``,
``load_base`` with the hash remembered, and for the first time.

**A step** is forward, backward and AdamW in autocast to bfloat16, as diffusers' training scripts have it, on random
latents and text features, with one target. The *bare* step has no adapter; its gradient flows to the text features,
as every learned token asks for, and so through all layers behind the first cross-attention: the graph that all
adapters need is alive in it, and what a case takes above it is due to its adapters. ``orthogonal`` is Orthoplex's
default, with frozen directions; ``peft`` is PEFT's LoRA of the same rank on the same layers, through diffusers'
``add_adapter``; both train in float32 (``cast_training_params``), as Orthoplex always does. Times are of one process,
the cases of a round one after the other in an order that alternates, and the fastest of each case counts: whatever
else the machine does only adds to a time. Whole steps differ from one another by more than adapters take, so what is
above the bare step is added up of its parts: one layer of every kind and shape, with and without its adapter, times the
layers of its kind, at the side of pictures such bases are trained on, and the optimizer. Memory is of a process for
each case.

``python -m benchmarks.sdxl_costs --output results/sdxl-costs.json``
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from benchmarks.full_size import full_size_xl_folder, random_xl_denoiser
from benchmarks.load_cost import machine
from orthoplex.adapters import AdapterConfig, create_adapter, share_directions
from orthoplex.benchmark.targets import peft_lora
from orthoplex.models import precision
from orthoplex.models.base import adding
from orthoplex.models.layer_names import select_linear_layers

CASES: tuple[str, ...] = ("bare", "orthogonal", "peft")
LOADERS = ("diffusers", "remembered", "first time")
SELECTIONS = ("cross-attention-kv", "attention")
LIMIT = 0.4
"""The most time and memory above the bare step, as a share of PEFT's."""
_MIB = 2**20
_CPU = torch.device("cpu")
Row = dict[str, float]


class Step:
    """A training step of a denoiser, with the adapters of a case."""

    def __init__(self, *, small: bool, side: int, batch_size: int, rank: int, selection: str) -> None:
        """Build the denoiser, and inputs that are the same for every case."""
        self.unet = random_xl_denoiser(torch.bfloat16, small=small)
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(batch_size, *shape, generator=generator)

        self.latents, self.target = random(4, side, side), random(4, side, side)
        self.text, self.pooled = random(77, 2048).to(torch.bfloat16).requires_grad_(), random(1280)
        self.sizes = torch.tensor([[8.0 * side, 8.0 * side, 0, 0, 8.0 * side, 8.0 * side]]).expand(batch_size, -1)
        self.rank = rank
        self.layers = select_linear_layers({"unet": self.unet}, selection)

    def loss(self) -> Tensor:
        """Mean squared error of the prediction."""
        with precision("bf16", _CPU):
            predicted = self.unet(
                self.latents,
                500,
                self.text,
                added_cond_kwargs={"text_embeds": self.pooled, "time_ids": self.sizes},
            ).sample
        return nn.functional.mse_loss(predicted.float(), self.target)

    @contextmanager
    def case(self, name: str) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Inside, the adapters are in; yields what is trained, and what is frozen beside the denoiser's own."""
        if name == "bare":
            yield [], []
        elif name == "peft":
            with peft_lora(self.unet, [layer.removeprefix("unet.") for layer in self.layers], self.rank) as trained:
                cast_training_params(self.unet, dtype=torch.float32)
                yield [*trained], []
        else:
            config = AdapterConfig(method=name, rank=self.rank, slot=0)
            adapters = {}
            for layer, linear in self.layers.items():
                sizes = {"out_features": linear.out_features, "in_features": linear.in_features}
                adapters[layer] = create_adapter(config, layer=layer, **sizes, concept_id="cost", seed=0)
            share_directions(adapters.values())
            with attached({layer: self.layers[layer] for layer in adapters}, adapters):
                every = nn.ModuleDict({str(number): adapter for number, adapter in enumerate(adapters.values())})
                yield [*every.parameters()], [*every.buffers()]


@contextmanager
def attached(layers: Mapping[str, nn.Linear], adapters: Mapping[str, Any]) -> Iterator[None]:
    """Inside, adapters are in as ``Base.attached`` puts them in."""
    handles = [layers[name].register_forward_hook(adding(adapter)) for name, adapter in adapters.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def seconds_of(step: Step, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, two numbers a round; before the first of a case, one step is not timed."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name in CASES if number % 2 == 0 else reversed(CASES):
            with step.case(name) as (trained, _):
                optimizer = torch.optim.AdamW([*trained, step.text])
                for counted in (False, True, True):
                    began = time.perf_counter()
                    step.loss().backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    if counted:
                        seconds[name].append(time.perf_counter() - began)
    return dict(seconds)


@dataclass(frozen=True)
class Place:
    """What layers of one kind have in common in a step: the width of the output, and the input."""

    out_features: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    has_gradient: bool


def places_of(step: Step, side: int) -> dict[Place, int]:
    """Return how many of the layers that adapters go to have what in common, with latents of another side."""
    places: Counter[Place] = Counter()

    def note(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(linear, nn.Linear)
        x = inputs[0]
        num, tokens, width = x.shape
        if tokens != step.text.shape[1]:
            tokens = tokens * side**2 // step.latents.shape[-1] ** 2
        places[Place(linear.out_features, (num, tokens, width), x.dtype, x.requires_grad)] += 1

    handles = [linear.register_forward_pre_hook(note) for linear in step.layers.values()]
    step.loss()
    for handle in handles:
        handle.remove()
    return dict(places)


def seconds_of_parts(step: Step, rounds: int, side: int) -> dict[str, Row]:
    """Return the seconds of all target layers, at latents of a side, and of the optimizer, for every case."""
    layers = {name: 0.0 for name in CASES}
    for place, count in places_of(step, side).items():
        for name, seconds in seconds_of_layer(place, step.rank, 10 * rounds).items():
            layers[name] += seconds * count
    optimizers = {name: float("inf") for name in CASES}
    for name in CASES:
        with step.case(name) as (trained, _):
            for values in trained:
                values.grad = torch.full_like(values, 1e-3)
            optimizer = torch.optim.AdamW([*trained, step.text.detach().requires_grad_()])
            for _ in range(3 * rounds):
                began = time.perf_counter()
                optimizer.step()
                optimizers[name] = min(optimizers[name], time.perf_counter() - began)
            optimizer.zero_grad()
    return {name: {"layers": layers[name], "optimizer": optimizers[name]} for name in CASES}


def seconds_of_layer(place: Place, rank: int, rounds: int) -> dict[str, float]:
    """Return the seconds of a layer's fastest pass forward and backward, without an adapter and with each."""
    sizes = {"out_features": place.out_features, "in_features": place.shape[-1]}
    bare, ours = (nn.Linear(place.shape[-1], place.out_features).to(torch.bfloat16) for _ in range(2))
    theirs: Any = nn.ModuleDict({"layer": nn.Linear(place.shape[-1], place.out_features).to(torch.bfloat16)})
    for module in (bare, ours, theirs):
        module.requires_grad_(False)
    adapter = create_adapter(
        AdapterConfig(method="orthogonal", rank=rank, slot=0), layer="layer", **sizes, concept_id="cost", seed=0
    )
    ours.register_forward_hook(adding(adapter))
    theirs = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=["layer"]), theirs)
    cast_training_params(theirs, dtype=torch.float32)
    modules: dict[str, nn.Module] = dict(zip(CASES, (bare, ours, theirs["layer"]), strict=True))
    x = torch.randn(place.shape).to(place.dtype).requires_grad_(place.has_gradient)
    gradient = torch.randn(*place.shape[:-1], place.out_features).to(torch.bfloat16)
    fastest = {name: float("inf") for name in CASES}
    for number in range(rounds):
        for name in CASES if number % 2 == 0 else reversed(CASES):
            for _ in range(2):
                began = time.perf_counter()
                with precision("bf16", _CPU):
                    output = modules[name](x)
                if output.requires_grad:
                    output.backward(gradient)
                fastest[name] = min(fastest[name], time.perf_counter() - began)
    return fastest


def memory_of(step: Step, name: str) -> Row:
    """MiB of a case: what the graph stores, what trained and frozen numbers take with all states, and the peak."""
    with step.case(name) as (trained, frozen):
        resident = {values.untyped_storage().data_ptr() for values in (*step.unet.parameters(), *trained, *frozen)}
        stored: dict[int, int] = {}

        def pack(values: Tensor) -> Tensor:
            storage = values.untyped_storage()
            if storage.data_ptr() not in resident:
                stored[storage.data_ptr()] = storage.nbytes()
            return values

        optimizer = torch.optim.AdamW([*trained, step.text])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values):
            loss = step.loss()
        graph = sum(stored.values())
        loss.backward()
        optimizer.step()
        own = [values.nbytes for values in (*trained, *frozen)]
        own += [values.grad.nbytes for values in trained if values.grad is not None]
        own += [
            part.nbytes for values in trained for part in optimizer.state[values].values() if isinstance(part, Tensor)
        ]
        optimizer.zero_grad()
        step.loss().backward()
        optimizer.step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "graph_mib": graph / _MIB,
            "adapters_mib": sum(own) / _MIB,
            "counted_mib": (graph + sum(own)) / _MIB,
            "peak_mib": peak,
            "trained_numbers": float(sum(values.numel() for values in trained)),
        }


def step_costs(options: argparse.Namespace, selection: str) -> dict[str, Any]:
    """All numbers of one selection of layers."""
    memory = {name: worker(options, "memory", selection, name) for name in CASES}
    seconds = worker(options, "seconds", selection)
    parts = worker(options, "parts", selection)
    above_bare = {name: sum(parts[name].values()) - sum(parts["bare"].values()) for name in CASES}
    time_above = above_bare["orthogonal"] / above_bare["peft"]
    above = {
        key: (memory["orthogonal"][key] - memory["bare"][key]) / (memory["peft"][key] - memory["bare"][key])
        for key in ("graph_mib", "adapters_mib", "counted_mib", "peak_mib")
    }
    return {
        "layers": worker(options, "layers", selection)["count"],
        "memory": memory,
        "seconds": seconds,
        "fastest_seconds": {name: min(values) for name, values in seconds.items()},
        "seconds_of_parts": parts,
        "seconds_above_bare": above_bare,
        "share_of_peft_above_bare": {"seconds": time_above, **above},
        "within_limit": {"seconds": time_above <= LIMIT, "counted_mib": above["counted_mib"] <= LIMIT},
    }


def load_costs(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of every loader, and their ratios to diffusers'."""
    rows: dict[str, list[Row]] = {loader: [] for loader in LOADERS}
    with tempfile.TemporaryDirectory() as home:
        loaded(options, "remembered", Path(home))  # fills the file cache and the cache of hashes
        for number in range(options.rounds):
            first = number % len(LOADERS)
            for loader in (*LOADERS[first:], *LOADERS[:first]):
                rows[loader].append(loaded(options, loader, Path(home)))
                print(number, loader, rows[loader][-1], file=sys.stderr, flush=True)
    medians = {
        loader: {key: statistics.median(row[key] for row in every) for key in every[0]}
        for loader, every in rows.items()
    }
    ratios = {
        loader: {key: value / medians["diffusers"][key] for key, value in row.items()}
        for loader, row in medians.items()
    }
    return {"medians": medians, "ratios": ratios, "all": rows}


def loaded(options: argparse.Namespace, loader: str, home: Path) -> Row:
    """Load once in a process of its own."""
    with tempfile.TemporaryDirectory() as fresh:
        place = str(home if loader == "remembered" else fresh)
        return worker(options, "load", loader, environ={"HOME": place})


def load_worker(folder: Path, loader: str) -> Row:
    """Load in this process."""
    if loader == "diffusers":
        from diffusers import StableDiffusionXLPipeline

        load: Callable[[], Any] = lambda: StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float16)  # noqa: E731
    else:
        from orthoplex.models import load_base

        load = lambda: load_base(folder, dtype=torch.float16).pipeline  # noqa: E731
    began = time.perf_counter(), time.process_time()
    pipeline = load()
    row = {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    if {pipeline.unet.dtype, pipeline.text_encoder_2.dtype} != {torch.float16}:
        sys.exit("not everything is float16")
    return {**row, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def worker(options: argparse.Namespace, *arguments: str, environ: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
    """Run a part in a process of its own, and return the JSON value that it prints."""
    settings = ["--folder", str(options.folder), "--side", str(options.side), "--rank", str(options.rank)]
    settings += [
        "--parts-side",
        str(options.parts_side),
        "--rounds",
        str(options.rounds),
        "--batch-size",
        str(options.batch_size),
    ]
    settings += ["--small"] if options.small else []
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sdxl_costs", *settings, "--part", *arguments]
    finished = subprocess.run(
        command, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        sys.exit(f"{' '.join(arguments)}: {finished.stderr[-2000:]}")
    return json.loads(finished.stdout.strip().splitlines()[-1])


def part(options: argparse.Namespace, arguments: Sequence[str]) -> object:
    """Do one part in this process."""
    what, *names = arguments
    if what == "build":
        return str(full_size_xl_folder(options.folder, small=options.small))
    if what == "load":
        return load_worker(options.folder, names[0])
    sizes = {"small": options.small, "side": options.side, "batch_size": options.batch_size, "rank": options.rank}
    step = Step(**sizes, selection=names[0])
    if what == "layers":
        return {"count": len(step.layers)}
    if what == "parts":
        return seconds_of_parts(step, options.rounds, options.parts_side)
    return seconds_of(step, options.rounds) if what == "seconds" else memory_of(step, names[1])


def main() -> None:
    """Measure, and write after every part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "orthoplex-sdxl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=32, help="height and width of the latents")
    parser.add_argument("--parts-side", type=int, default=128, help="the same for the times of layers")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--small", action="store_true", help="fewer transformer blocks, to try the harness")
    parser.add_argument("--only", choices=("load", "step"), help="one half alone")
    parser.add_argument("--output", type=Path, default=Path("results/sdxl-costs.json"))
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(part(options, options.part)))
        return
    settings = {"rounds": options.rounds, "side": options.side, "batch_size": options.batch_size}
    settings |= {"parts_side": options.parts_side, "rank": options.rank, "small": options.small}
    result: dict[str, Any] = {"command": "python -m benchmarks.sdxl_costs", "settings": settings}
    result["machine"] = {**machine(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    if options.only and options.output.is_file():  # the other half stays
        result = {**json.loads(options.output.read_text("utf-8")), **result}
    if options.only != "step":
        worker(options, "build")  # a child's peak of memory is at least that of the process that starts it
        time.sleep(3)  # hashes of files that were written a moment ago are not remembered
        result["load"] = load_costs(options)
        options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for selection in SELECTIONS if options.only != "load" else ():
        result["step"] = {**result.get("step", {}), selection: step_costs(options, selection)}
        options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
