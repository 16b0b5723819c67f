"""The cost of a training step: memory for the backward pass and time, ours beside PEFT's LoRA; and erasure.

    python -m orthoplex.benchmark.training_cost --output results/training-cost.json

Four cases on the same denoiser, all training the text features too (as a learned token does, so that the whole graph
is alive): `frozen` (no adapter), `orthogonal` and `lora` (ours), `peft` (PEFT's LoRA through diffusers), equal rank and
layers. What an adapter keeps is its case less `frozen`, both with the graph alive from the first layer on. What erasure
adds to a step is measured on real trainings (`orthoplex.benchmark.erasure_cost`).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orthoplex.adapters import AdapterConfig, create_adapter
from orthoplex.benchmark.erasure_cost import ErasureSettings, erasure_cost
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.sources import sample_sources
from orthoplex.benchmark.targets import RANDOM_SD15, load_target, peft_lora
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.files import markdown_table, write_json, write_text
from orthoplex.models import Base

CASES = ("frozen", "orthogonal", "lora", "peft")
_MIB = 2**20
_CONCEPT = "anna"
_MEMORIES = ("saved_mib", "adapter_saved_mib", "peak_mib")
_MODULE = "orthoplex.benchmark.training_cost"


@dataclass(frozen=True)
class CostSettings:
    """The options of the measurement.

    Attributes:
        target: `"sd15"` or a base (see `orthoplex.benchmark.targets.load_target`).
        rank: Rank of every adapter.
        layers: The selection of layers with an adapter.
        latent_size: Height and width of the latents; 0 takes the denoiser's own.
        batch_size: Latents a step.
        tokens: Text tokens of every prompt.
        rounds: Times that all cases are timed, in an order that alternates.
        steps: Timed steps in a row, after one that is not timed.
    """

    target: str
    rank: int = 4
    layers: str = "attention"
    latent_size: int = 0
    batch_size: int = 1
    tokens: int = 77
    rounds: int = 5
    steps: int = 1


@dataclass(frozen=True)
class Memory:
    """Memory of one case, measured in a process of its own.

    Attributes:
        saved_bytes: Bytes of all storages kept for backward, weights left out, each storage once.
        saved_bytes_throughout: The same when the latents want a gradient too: then every case has the whole graph, and
            a difference between cases is due to their adapters alone.
        resting_mib: Largest resident memory before the first step.
        peak_mib: Largest resident memory after two steps.
        trained_parameters: Numbers in the adapters.
    """

    saved_bytes: int
    saved_bytes_throughout: int
    resting_mib: float
    peak_mib: float
    trained_parameters: int


@dataclass(frozen=True)
class AdapterTensors:
    """The numbers of a case's adapters: trained, and frozen beside the denoiser's own."""

    trained: Sequence[nn.Parameter]
    frozen: Sequence[Tensor]


class TrainingStep:
    """One optimizer step of a denoiser with some adapter case; inputs are the same for every case."""

    def __init__(self, base: Base, settings: CostSettings) -> None:
        self.base, self.settings = base, settings
        self.unet = base.family.denoiser
        configuration: Any = self.unet.config
        size = settings.latent_size or configuration.sample_size
        shape = (settings.batch_size, configuration.in_channels, size, size)
        text = (settings.batch_size, settings.tokens, configuration.cross_attention_dim)
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(shape, generator=generator).to(base.dtype)
        self.target = torch.randn(shape, generator=generator).to(base.dtype)
        self.text = torch.randn(text, generator=generator).to(base.dtype).requires_grad_()
        self.times = torch.full((settings.batch_size,), 500)

    def loss(self) -> Tensor:
        """Mean squared error of the prediction."""
        predicted = self.unet(self.latents, self.times, encoder_hidden_states=self.text).sample
        return nn.functional.mse_loss(predicted.float(), self.target.float())

    @contextmanager
    def case(self, name: str) -> Iterator[AdapterTensors]:
        """Inside, the case's adapters are in the denoiser; yields their tensors, none for `frozen`.

        Raises:
            ConfigurationError: for an unknown case.
        """
        chosen = self.base.family.layers(self.settings.layers)
        layers = {name: layer.linear for name, layer in chosen.items()}
        if name == "frozen":
            yield AdapterTensors([], [])
        elif name == "peft":
            with peft_lora(self.unet, [layer.removeprefix("unet.") for layer in layers], self.settings.rank) as trained:
                yield AdapterTensors(trained, [])
        elif name in CASES:
            config = AdapterConfig(method=name, rank=self.settings.rank, slot=0)
            adapters = {
                layer: create_adapter(
                    config,
                    layer=layer,
                    out_features=module.out_features,
                    in_features=module.in_features,
                    concept_id="cost",
                    seed=0,
                ).to(self.base.dtype)
                for layer, module in layers.items()
            }
            with self.base.attached(adapters):
                trained = [weight for adapter in adapters.values() for weight in adapter.parameters()]
                yield AdapterTensors(trained, [buffer for adapter in adapters.values() for buffer in adapter.buffers()])
        else:
            raise ConfigurationError(f"cost case is {name!r}; allowed: {', '.join(CASES)}")


def saved_bytes(step: TrainingStep, adapters: AdapterTensors, *, throughout: bool = False) -> int:
    """Bytes that the graph of one forward pass keeps for backward: every storage once, weights left out.

    Args:
        step: The step.
        adapters: What is in the denoiser now.
        throughout: Let the latents want a gradient, so that the graph begins at the first layer in every case.
    """
    weights = [*step.unet.parameters(), *adapters.trained, *adapters.frozen]
    resident = {weight.untyped_storage().data_ptr() for weight in weights}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in resident:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    step.latents.requires_grad_(throughout)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step.loss()
    total = sum(storages.values())
    loss.backward()
    step.latents.requires_grad_(False)
    return total


def measure_memory(settings: CostSettings, case: str) -> Memory:
    """Measure one case in this process, which should have done nothing else: its peak counts from its start."""
    step = TrainingStep(load_target(settings.target), settings)
    with step.case(case) as adapters:
        optimizer = torch.optim.AdamW([*adapters.trained, step.text])
        resting = _peak_mib()
        saved = saved_bytes(step, adapters)
        throughout = saved_bytes(step, adapters, throughout=True)
        optimizer.step()
        optimizer.zero_grad()
        step.loss().backward()
        optimizer.step()
        return Memory(saved, throughout, resting, _peak_mib(), sum(weight.numel() for weight in adapters.trained))


def measure_seconds(settings: CostSettings) -> dict[str, list[float]]:
    """Seconds of a step (forward, backward, AdamW), one number a round; the order of the cases alternates."""
    step = TrainingStep(load_target(settings.target), settings)
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    for round_number in range(settings.rounds):
        for case in CASES if round_number % 2 == 0 else reversed(CASES):
            with step.case(case) as adapters:
                optimizer = torch.optim.AdamW([*adapters.trained, step.text])
                started = 0.0
                for number in range(settings.steps + 1):
                    if number == 1:
                        started = time.perf_counter()
                    step.loss().backward()
                    optimizer.step()
                    optimizer.zero_grad()
                seconds[case].append((time.perf_counter() - started) / settings.steps)
    return seconds


def training_cost(settings: CostSettings) -> dict[str, Any]:
    """All numbers of one target: memory of every case in fresh processes, then time of all in one process.

    Raises:
        OrthoplexError: when a process fails; holds what it wrote.
    """
    memory = {case: _in_fresh_process(settings, case) for case in CASES}
    seconds = measure_seconds(settings)
    whole = memory["frozen"].saved_bytes_throughout
    rows = {}
    for case in CASES:
        rows[case] = {
            "saved_mib": memory[case].saved_bytes / _MIB,
            "adapter_saved_mib": (memory[case].saved_bytes_throughout - whole) / _MIB,
            "peak_mib": memory[case].peak_mib,
            "resting_mib": memory[case].resting_mib,
            "trained_parameters": memory[case].trained_parameters,
            "step_seconds": statistics.median(seconds[case]),
            "step_seconds_of_rounds": seconds[case],
        }
    ours, peft = rows["orthogonal"], rows["peft"]
    pairs = zip(seconds["orthogonal"], seconds["peft"], strict=True)
    return {
        "settings": asdict(settings),
        "cases": rows,
        "orthogonal_to_peft": {
            "saved": ours["saved_mib"] / peft["saved_mib"],
            "adapter_saved": ours["adapter_saved_mib"] / peft["adapter_saved_mib"],
            "step_seconds": statistics.median(mine / theirs for mine, theirs in pairs),
        },
    }


def _peak_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)


def _in_fresh_process(settings: CostSettings, case: str) -> Memory:
    command = [sys.executable, "-m", _MODULE, "--case", case, "--settings", json.dumps(asdict(settings))]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise OrthoplexError(f"measuring {case!r} on {settings.target!r} failed: {finished.stderr.strip()[-2000:]}")
    return Memory(**json.loads(finished.stdout.strip().splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: all targets into one file, and its tables beside it; `--case` is how it calls itself."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/training-cost.json"))
    parser.add_argument("--targets", nargs="*", default=["vignette", RANDOM_SD15])
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sd15-latent-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8, help="of all targets but sd15, which takes 1")
    parser.add_argument("--erasure-bases", nargs="*", default=["vignette"], help="on which erasure is timed")
    parser.add_argument("--erasure-rounds", type=int, default=6)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--settings", type=json.loads)
    options = parser.parse_args(arguments)
    if options.case:
        sys.stdout.write(json.dumps(asdict(measure_memory(CostSettings(**options.settings), options.case))) + "\n")
        return
    targets = {}
    for target in options.targets:
        large = target == RANDOM_SD15
        targets[target] = training_cost(
            CostSettings(
                target=target,
                rank=options.rank,
                rounds=options.rounds,
                latent_size=options.sd15_latent_size if large else 0,
                batch_size=1 if large else options.batch_size,
                steps=1 if large else 3,
            )
        )
    source = sample_sources([_CONCEPT])[0]
    erasure = {
        base: erasure_cost(ErasureSettings(base, rounds=options.erasure_rounds), source)
        for base in options.erasure_bases
    }
    write_json(options.output, {"machine": machine(), "targets": targets, "erasure": erasure})
    write_text(options.output.with_suffix(".md"), tables(targets, erasure))


def tables(targets: Mapping[str, Any], erasure: Mapping[str, Any]) -> str:
    """The numbers as Markdown.

    Args:
        targets: Target to what `training_cost` returned.
        erasure: Base to what `erasure_cost` returned.
    """
    steps = markdown_table(
        ("target", "case", "saved MiB", "of it the adapters'", "peak MiB", "seconds a step"),
        [
            (target, case, *(f"{row[key]:.1f}" for key in _MEMORIES), f"{row['step_seconds']:.4f}")
            for target, cost in targets.items()
            for case, row in cost["cases"].items()
        ],
    )
    forms = markdown_table(
        ("base", "erasure", "foreign inputs a step", "share of steps", "seconds a step", "to none"),
        [
            (
                base,
                form,
                str(cost["erasure_batch_size"]) if form == "prediction" else "0",
                f"{cost['erasure_share']:g}" if form != "none" else "0",
                f"{seconds:.4f}",
                f"{cost['step_seconds_to_none'].get(form, 1.0):.2f}",
            )
            for base, cost in erasure.items()
            for form, seconds in cost["step_seconds"].items()
        ],
    )
    return f"# What a training step costs\n\n{steps}\n## What erasure adds to it\n\n{forms}"


if __name__ == "__main__":
    main()
