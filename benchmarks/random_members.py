"""Concepts of random numbers, and the seconds of actions, for benchmarks of merges."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from orthoplex.adapters import LowRank

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHT, USUAL, LARGE = 0.02, 0.01, 0.2
"""Of a random weight, and of a concept's change beside it; LoRA files change weights by a few hundredths."""


@dataclass(frozen=True)
class Row:
    """What is measured: concepts of a rank in some layers of a model."""

    model: str
    layers: str
    dtype: str
    concepts: int
    rank: int
    form: str = "dense"


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
