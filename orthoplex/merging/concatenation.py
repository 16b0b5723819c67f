"""Sums of changes as factors side by side: no product, no cross term, and no rounding where strengths allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.merging.algorithms import Part

_BEGINNING = 16
"""Nearly all downs that differ do so in their first numbers; the others are compared whole."""
_EXACT_TYPES = (torch.float16, torch.bfloat16, torch.float32)


def is_exact(strength: float) -> bool:
    """True if a product with a strength rounds nothing but the smallest numbers: a power of two, or minus one."""
    return abs(math.frexp(strength)[0]) == 0.5


def concatenated(parts: Sequence[Part], factor: float = 1.0) -> LowRank:
    """Return ``Σ_i factor · s_i ΔW_i``: the ups side by side, each times its strength, the downs one below the other.

    Numbers keep their type where that is exact, and are float32 otherwise; an up times a strength is rounded once.
    Downs never change. Parts with equal downs share one, if the sum of their ups is exact in float32.

    Args:
        parts: The changes; at least one, all of one shape.
        factor: A further factor of all strengths.
    """
    factors: list[tuple[Tensor, Tensor]] = []
    beginnings: list[tuple[float, ...]] = []
    for part in parts:
        up, down = _scaled(_plain(part.change.up), part.strength * factor), _plain(part.change.down)
        beginning = tuple(down.flatten()[:_BEGINNING].tolist())
        alike = (at for at, other in enumerate(beginnings) if other == beginning)
        place = next((at for at in alike if _equal(factors[at][1], down)), None)
        joined = None if place is None else _exact_sum(factors[place][0], up)
        if place is None or joined is None:
            factors.append((up, down))
            beginnings.append(beginning)
        else:
            factors[place] = (joined, factors[place][1])
    return LowRank(_side_by_side([up for up, _ in factors], 1), _side_by_side([down for _, down in factors], 0))


def _plain(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in _EXACT_TYPES else tensor.float()


def _scaled(up: Tensor, strength: float) -> Tensor:
    if strength == 1.0:
        return up
    if is_exact(strength):
        scaled = up * strength
        if torch.equal(scaled / strength, up):
            return scaled
    return (up.double() * strength).float()


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)


def _exact_sum(first: Tensor, second: Tensor) -> Tensor | None:
    total = first.double() + second.double()
    rounded = total.float()
    return rounded if torch.equal(rounded.double(), total) else None


def _side_by_side(tensors: Sequence[Tensor], dim: int) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return torch.cat([tensor.to(dtype) for tensor in tensors], dim)
