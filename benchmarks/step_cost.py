"""What a denoising step costs with concepts in: folded, beside the layers, a set for every row, and PEFT's adapters.

    python -m benchmarks.step_cost --output results/step-cost.json

A step is one prediction of the denoiser for a batch of two, as guidance makes it. In every round each contestant is put
in, takes one step untimed and one timed, and is taken out, so that all meet the same machine. The features of prompts
are random numbers. PEFT's adapters are loaded by diffusers from the same files.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.merge_cost import MergeSettings, random_concepts
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.targets import RANDOM_SD15, load_target
from orthoplex.concepts import Concept, load_concept
from orthoplex.errors import ConfigurationError
from orthoplex.files import write_json
from orthoplex.merging import Merge, merge
from orthoplex.models import Base
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.quiet import quiet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Put = Callable[[], AbstractContextManager[object]]
GUIDED, ROWS = 2, 4
"""Rows of a batch: of one picture with guidance, and of pictures with sets of their own."""
SHORTENED = 8
"""Pixels a number of a latent stands for, each way, in Stable Diffusion 1.5."""


@dataclass(frozen=True)
class StepSettings:
    """What is measured.

    Attributes:
        target: `"sd15"` or a base (see `orthoplex.benchmark.targets.load_target`).
        dtype: Data type of the base's weights.
        concepts: Numbers of concepts beside the layers; the largest is folded in, too.
        rank: Rank of every concept in every attention layer.
        pixels: Size of the random Stable Diffusion 1.5's picture; other bases have their own.
        rounds: Times that every contestant is timed.
    """

    target: str
    dtype: str = "float32"
    concepts: tuple[int, ...] = (1, 5, 15)
    rank: int = 20
    pixels: int = 256
    rounds: int = 5

    def __post_init__(self) -> None:
        """Refuse numbers that are too small and unknown data types."""
        numbers = {"concepts": min(self.concepts, default=0), "rank": self.rank, "rounds": self.rounds}
        for name, value in numbers.items():
            if value < 1:
                raise ConfigurationError(f"step cost {name} is {value}; allowed: 1 or more")
        if self.pixels < 64:
            raise ConfigurationError(f"step cost pixels is {self.pixels}; allowed: 64 or more")
        if self.dtype not in DTYPES:
            raise ConfigurationError(f"step cost dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")


@dataclass(frozen=True, eq=False)
class Step:
    """One prediction of a base's denoiser for a batch.

    Attributes:
        base: The base.
        noisy: ``(n, c, h, w)``.
        conditioning: Of n prompts.
    """

    base: Base
    noisy: Tensor
    conditioning: Conditioning

    @staticmethod
    def of(base: Base, count: int, size: tuple[int, int, int]) -> Step:
        """Return a step for ``count`` rows of random latents and features; the first rows are the same for any count.

        Args:
            base: The base.
            count: Rows of the batch.
            size: ``(c, h, w)``.
        """
        generator = torch.Generator().manual_seed(0)
        noisy = [torch.randn(1, *size, generator=generator) for _ in range(ROWS)]
        width: int = base.pipeline.unet.config.cross_attention_dim
        features = [torch.randn(1, 77, width, generator=generator) for _ in range(ROWS)]
        conditioning = Conditioning(torch.cat(features[:count]).to(base.dtype))
        return Step(base, torch.cat(noisy[:count]).to(base.dtype), conditioning)

    @torch.no_grad()
    def predict(self) -> Tensor:
        """Return the prediction."""
        return self.base.family.predict(self.noisy, torch.tensor(500), self.conditioning)

    def timed(self) -> tuple[float, Tensor]:
        """Return the seconds of the second of two predictions, and what it is."""
        self.predict()
        started = time.perf_counter()
        prediction = self.predict()
        return time.perf_counter() - started, prediction


class Contest:
    """All contestants on one base, with the same files of concepts."""

    def __init__(self, base: Base, files: Sequence[Path], settings: StepSettings) -> None:
        self.base, self.files = base, files
        config: Any = base.pipeline.unet.config
        edge = settings.pixels // SHORTENED if settings.target == RANDOM_SD15 else config.sample_size
        self.size = (config.in_channels, edge, edge)
        concepts = [load_concept(file, base=base.identity) for file in files]
        self.merges = {count: summed(concepts[:count]) for count in sorted(set(settings.concepts))}
        self.most = max(self.merges)
        self.sets = [summed(concepts[row::ROWS]) for row in range(ROWS)]
        self.seconds: dict[str, list[float]] = {}
        self.predictions: dict[str, Tensor] = {}

    def round(self, number: int) -> None:
        """Time every contestant once, in the opposite order in odd rounds; PEFT, which wraps layers, comes last."""
        guided, rows = (Step.of(self.base, count, self.size) for count in (GUIDED, ROWS))
        contestants: list[tuple[str, Step, Put | None]] = [
            ("base", guided, None),
            ("merged", guided, partial(self.base.folded, self.merges[self.most])),
            *(
                (f"unmerged {count}", guided, partial(self.base.folded, change, unmerged=True))
                for count, change in self.merges.items()
            ),
            ("base, four rows", rows, None),
            ("four rows of four sets", rows, partial(self.base.rows, self.sets)),
        ]
        for name, step, put in contestants if number % 2 == 0 else reversed(contestants):
            self._take(name, step, put)
        with self._adapters() as choose:
            for count in self.merges:
                choose(count)
                self._take(f"PEFT {count}", guided)

    def differences(self) -> dict[str, float]:
        """Return how far predictions are from those of the folded merges, as a share of what the merges change.

        Both are largest absolute differences over a batch.
        """
        guided, rows = (Step.of(self.base, count, self.size) for count in (GUIDED, ROWS))
        shares = {}
        for count, change in self.merges.items():
            with self.base.folded(change):
                folded = guided.predict()
            for name in (f"unmerged {count}", f"PEFT {count}"):
                shares[name] = _share(self.predictions[name], folded, self.predictions["base"])
        alone = []
        for row, change in enumerate(self.sets):
            with self.base.folded(change):
                alone.append(rows.predict()[row])
        name = "four rows of four sets"
        shares[name] = _share(self.predictions[name], torch.stack(alone), self.predictions["base, four rows"])
        return shares

    def _take(self, name: str, step: Step, put: Put | None = None) -> None:
        if put is None:
            seconds, prediction = step.timed()
        else:
            with put():
                seconds, prediction = step.timed()
        self.seconds.setdefault(name, []).append(seconds)
        self.predictions[name] = prediction

    @contextmanager
    def _adapters(self) -> Iterator[Callable[[int], None]]:
        """Inside, all files are PEFT's adapters; what is yielded makes the first few active."""
        pipeline: Any = self.base.pipeline
        names = [file.stem for file in self.files[: self.most]]
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns of every second adapter, which is what is wanted here
            for file, name in zip(self.files, names, strict=False):
                pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
            try:
                yield lambda count: pipeline.set_adapters(names[:count], [1.0] * count)
            finally:
                pipeline.unload_lora_weights()


def summed(concepts: Sequence[Concept]) -> Merge:
    """Return the sum of concepts."""
    return merge([(concept, 1.0) for concept in concepts], algorithm="sum")


def _share(prediction: Tensor, wanted: Tensor, base: Tensor) -> float:
    error = (prediction.double() - wanted.double()).abs().max()
    return float(error / (wanted.double() - base.double()).abs().max())


def step_cost(settings: StepSettings) -> dict[str, Any]:
    """All numbers of one base in one data type: seconds of a step, ratios to the base, and differences."""
    base = load_target(settings.target, dtype=DTYPES[settings.dtype])
    most = max(*settings.concepts, ROWS)  # every row has a set
    with tempfile.TemporaryDirectory() as folder:
        files = random_concepts(base, MergeSettings(settings.target, most, settings.rank), Path(folder))
        contest = Contest(base, files, settings)
        for number in range(settings.rounds):
            contest.round(number)
        differences = contest.differences()
    seconds = {
        name: {"fastest": min(values), "median": statistics.median(values)} for name, values in contest.seconds.items()
    }
    return {
        "settings": asdict(settings),
        "latents": list(contest.size),
        "concepts_of_rows": [len(change.recipe.concepts) for change in contest.sets],
        "seconds": seconds,
        "to_base": {name: _ratios(seconds, name) for name in seconds},
        "rounds": contest.seconds,
        "largest_difference_from_merged": differences,
    }


def _ratios(seconds: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    base = seconds["base, four rows" if "four rows" in name else "base"]
    return {key: seconds[name][key] / base[key] for key in base}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: every base in every data type, into one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/step-cost.json"))
    parser.add_argument("--targets", nargs="+", default=["vignette", RANDOM_SD15])
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--concepts", nargs="+", type=int, default=[1, 5, 15])
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--pixels", type=int, default=256, help="of sd15's picture")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = []
    for target in options.targets:
        for dtype in options.dtypes:
            settings = StepSettings(
                target, dtype, tuple(options.concepts), options.rank, options.pixels, options.rounds
            )
            rows.append(step_cost(settings))
            gc.collect()
            command = "python -m benchmarks.step_cost"
            write_json(options.output, {"command": command, "machine": machine(), "steps": rows})
    sys.stdout.write(f"{options.output}\n")


if __name__ == "__main__":
    main()
