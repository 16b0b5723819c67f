"""What a merge costs: folding many concepts into a base, ours beside diffusers' fuse, and the machine's own limit.

    python -m benchmarks.merge_cost --output results/merge-cost.json

Both start from the same concept files of random numbers and are timed in turns in one process. The limit is what the
bytes and products of the merge would take at the speed of a plain copy and a plain matrix product, measured alongside.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orthoplex.adapters import LowRank
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.targets import RANDOM_SD15, load_target
from orthoplex.concepts import Concept, Manifest, load_concept, save_concept
from orthoplex.errors import ConfigurationError
from orthoplex.files import write_json
from orthoplex.merging import merge
from orthoplex.models import Base
from orthoplex.models.quiet import quiet

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class MergeSettings:
    """What is measured.

    Attributes:
        target: `"sd15"` or a base (see `orthoplex.benchmark.targets.load_target`).
        num_concepts: How many concepts are merged.
        rank: Rank of every concept in every layer.
        layers: Which layers they change.
        dtype: Data type of the base's weights.
        rounds: Times that both are timed, in turns.
    """

    target: str
    num_concepts: int
    rank: int
    layers: str = "attention"
    dtype: str = "float32"
    rounds: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers below 1 and unknown data types."""
        for name in ("num_concepts", "rank", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"merge cost {name} is {getattr(self, name)}; allowed: 1 or more")
        if self.dtype not in _DTYPES:
            raise ConfigurationError(f"merge cost dtype is {self.dtype!r}; allowed: {', '.join(_DTYPES)}")


@dataclass(frozen=True)
class Turn:
    """Seconds of one round of one contestant.

    Attributes:
        load: Files to memory (diffusers: to adapters in the model).
        merge: Concepts to weights of the base.
        undo: Back to the base.
    """

    load: float
    merge: float
    undo: float


@dataclass(frozen=True)
class Exactness:
    """How near the weights are to what they should be.

    Attributes:
        merged_error: Norm of (merged - float64 sum) over norm of the sum's change, all layers.
        rounding_floor: The same for the float64 result rounded once: nothing can be nearer.
        changed_by_undo: Share of weights that are not bit-identical after the undo.
        undo_error: Largest absolute difference after the undo.
    """

    merged_error: float
    rounding_floor: float
    changed_by_undo: float
    undo_error: float


def linears(base: Base, selection: str) -> dict[str, nn.Linear]:
    """The linear layers of a selection, by name."""
    return {name: layer.linear for name, layer in base.family.layers(selection).items()}


def random_concepts(base: Base, settings: MergeSettings, folder: Path) -> list[Path]:
    """Write concept files of random numbers, every delta about a hundredth of its weight; no tokens."""
    layers = linears(base, settings.layers)
    paths = []
    for number in range(settings.num_concepts):
        generator = torch.Generator().manual_seed(number)
        changes = {
            name: LowRank(
                0.01 * torch.randn(layer.out_features, settings.rank, generator=generator),
                torch.randn(settings.rank, layer.in_features, generator=generator) / layer.in_features**0.5,
            )
            for name, layer in layers.items()
        }
        name = f"concept-{number:02d}"
        manifest = Manifest(
            name=name, kind="other", class_word="thing", trigger=f"<{name}>", base=base.identity, method="lora"
        )
        paths.append(folder / f"{name}.safetensors")
        save_concept(Concept(manifest, changes), paths[-1])
    return paths


class Contest:
    """Both ways of merging the same files into the same base, the exact answer, and the untouched weights."""

    def __init__(self, base: Base, files: Sequence[Path], layers: Mapping[str, nn.Linear]) -> None:
        self.base, self.files, self.layers = base, files, layers
        self.original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
        factors = [load_concept(file, base=base.identity).layers for file in files]
        self.change = {
            name: torch.stack([one[name].up.double() @ one[name].down.double() for one in factors]).sum(dim=0)
            for name in layers
        }

    def orthoplex(self, inspect: Callable[[], None]) -> Turn:
        """Load, merge and fold, undo, with `inspect` called while the merge is in."""
        started = time.perf_counter()
        concepts = [load_concept(file, base=self.base.identity) for file in self.files]
        loaded = time.perf_counter()
        undo = self.base.fold(merge([(concept, 1.0) for concept in concepts]))
        merged = time.perf_counter()
        inspect()
        undoing = time.perf_counter()
        undo.restore()
        return Turn(loaded - started, merged - loaded, time.perf_counter() - undoing)

    def diffusers(self, inspect: Callable[[], None]) -> Turn:
        """`load_lora_weights` for every file, `set_adapters` and `fuse_lora`; `unfuse_lora` is the undo."""
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns of every second adapter, which is what is wanted here
            return self._diffusers(inspect)

    def _diffusers(self, inspect: Callable[[], None]) -> Turn:
        pipeline: Any = self.base.pipeline
        names = [file.stem for file in self.files]
        started = time.perf_counter()
        for file, name in zip(self.files, names, strict=True):
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
        loaded = time.perf_counter()
        pipeline.set_adapters(names, [1.0] * len(names))
        pipeline.fuse_lora(adapter_names=names)
        merged = time.perf_counter()
        inspect()
        undoing = time.perf_counter()
        pipeline.unfuse_lora()
        undone = time.perf_counter()
        pipeline.unload_lora_weights()
        return Turn(loaded - started, merged - loaded, undone - undoing)

    def merged_error(self) -> float:
        """How far the weights in the base now are from the exact sum, against the size of the change."""
        return self._error(self._weights())

    def rounding_floor(self) -> float:
        """The error of the exact sum, rounded once to the base's data type."""
        rounded = {
            name: (self.original[name].double() + change).to(self.base.dtype) for name, change in self.change.items()
        }
        return self._error(rounded)

    def undo_difference(self) -> tuple[float, float]:
        """Share of weights that differ from the original ones, and the largest difference; then mends them."""
        total = changed = 0
        largest = 0.0
        for name, weight in self._weights().items():
            difference = (weight.double() - self.original[name].double()).abs()
            total, changed = total + weight.numel(), changed + int((difference > 0).sum())
            largest = max(largest, float(difference.max()))
            weight.copy_(self.original[name])
        return changed / total, largest

    def _weights(self) -> dict[str, Tensor]:
        """The layers' weights as they are now, wherever diffusers has wrapped a layer."""
        modules = dict(self.base.family.denoiser.named_modules())
        found = {}
        for name in self.layers:
            module: Any = modules[name.removeprefix("unet.")]
            module = module if isinstance(module, nn.Linear) else module.base_layer
            found[name] = module.weight.detach()
        return found

    def _error(self, weights: Mapping[str, Tensor]) -> float:
        error = size = 0.0
        for name, change in self.change.items():
            error += float((weights[name].double() - self.original[name].double() - change).pow(2).sum())
            size += float(change.pow(2).sum())
        return (error / size) ** 0.5


def merge_cost(settings: MergeSettings) -> dict[str, Any]:
    """All numbers of one merge: times of both, their ratio, exactness, and the distance to the machine's limit."""
    base = load_target(settings.target, dtype=_DTYPES[settings.dtype])
    layers = linears(base, settings.layers)
    turns: dict[str, list[Turn]] = {"orthoplex": [], "diffusers": []}
    exactness: dict[str, Exactness] = {}
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(base, random_concepts(base, settings, Path(folder)), layers)
        floor = contest.rounding_floor()
        contestants = {"orthoplex": contest.orthoplex, "diffusers": contest.diffusers}
        for round_number in range(settings.rounds):
            for name in contestants if round_number % 2 == 0 else reversed(contestants):
                errors: list[float] = []
                turns[name].append(contestants[name](lambda seen=errors: seen.append(contest.merged_error())))
                exactness[name] = Exactness(errors[0], floor, *contest.undo_difference())
    limit = _limit(layers, settings)
    medians = {name: _medians(rows) for name, rows in turns.items()}
    pairs = zip(turns["diffusers"], turns["orthoplex"], strict=True)
    return {
        "settings": asdict(settings),
        "seconds": medians,
        "rounds": {name: [asdict(row) for row in rows] for name, rows in turns.items()},
        "diffusers_to_orthoplex": statistics.median(theirs.merge / ours.merge for theirs, ours in pairs),
        "exactness": {name: asdict(row) for name, row in exactness.items()},
        "limit": {**limit, "orthoplex_to_limit": medians["orthoplex"]["merge"] / limit["seconds"]},
    }


def _medians(rows: Sequence[Turn]) -> dict[str, float]:
    return {name: statistics.median(getattr(row, name) for row in rows) for name in ("load", "merge", "undo")}


def _limit(layers: Mapping[str, nn.Linear], settings: MergeSettings) -> dict[str, float]:
    """Bytes and products of the merge, and the seconds they take at the speeds of this machine, whichever is longer."""
    weights = [layer.weight for layer in layers.values()]
    ranks = settings.rank * settings.num_concepts
    factors = sum(4 * ranks * sum(weight.shape) for weight in weights)
    moved = sum(2 * weight.numel() * weight.element_size() for weight in weights) + factors
    operations = sum(2 * weight.numel() * ranks for weight in weights)
    bandwidth, speed = copy_bytes_per_second(), product_operations_per_second()
    return {
        "bytes": moved,
        "operations": operations,
        "bytes_per_second": bandwidth,
        "operations_per_second": speed,
        "seconds": max(moved / bandwidth, operations / speed),
    }


def copy_bytes_per_second(mib: int = 128) -> float:
    """Bytes read and written a second by a plain copy: the best of five."""
    source, target = torch.ones(mib * 2**18), torch.zeros(mib * 2**18)
    return 2 * mib * 2**20 / min(_seconds(lambda: target.copy_(source)) for _ in range(5))


def product_operations_per_second(size: int = 1024) -> float:
    """Floating-point operations a second of a plain float32 matrix product: the best of five."""
    left, right = torch.ones(size, size), torch.ones(size, size)
    return 2 * size**3 / min(_seconds(lambda: left @ right) for _ in range(5))


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: twelve and fifteen concepts into every target, into one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/merge-cost.json"))
    parser.add_argument("--targets", nargs="+", default=["vignette", RANDOM_SD15])
    parser.add_argument("--concepts", nargs="+", type=int, default=[12, 15])
    parser.add_argument("--rank", type=int, help="of every concept; default 20 for sd15, 4 for others")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(_DTYPES))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    rows = [
        merge_cost(
            MergeSettings(
                target=target,
                num_concepts=count,
                rank=options.rank or (20 if target == RANDOM_SD15 else 4),
                dtype=dtype,
                rounds=options.rounds,
            )
        )
        for target in options.targets
        for dtype in options.dtypes
        for count in options.concepts
    ]
    write_json(options.output, {"machine": machine(), "merges": rows})
    sys.stdout.write(f"{options.output}\n")


if __name__ == "__main__":
    main()
