"""What an engine must know of factors before it multiplies them: sizes, rounding errors, and blocks of zeros."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from orthoplex.adapters import LowRank

_LARGEST_BATCH_BYTES = 2**26
Span = tuple[int, int]
"""The first place, and the one behind the last."""
HALVES = (torch.bfloat16, torch.float16)
"""Types in which products may be made where that costs no accuracy."""


@final
@dataclass(frozen=True)
class FactorFacts:
    """Facts of one change ``up · down``.

    Attributes:
        peak: No number of the change is larger than this in size.
        down_peak: The largest number of ``down`` in size.
        roundings: Type to the expected ``‖error‖²`` of the change if both factors are rounded to it.
        rows: First row of ``up`` that is not zero, and the row behind the last; ``(0, 0)`` where all are zero.
        columns: The same of the columns of ``down``.
        is_small: True if that block is at most half of the weight, and all numbers are finite.
    """

    peak: float
    down_peak: float
    roundings: dict[torch.dtype, float]
    rows: Span
    columns: Span
    is_small: bool


_KNOWN: WeakKeyDictionary[LowRank, FactorFacts] = WeakKeyDictionary()
_LOCK = threading.Lock()


def facts_of(changes: Iterable[LowRank]) -> dict[LowRank, FactorFacts]:
    """Return the facts of changes; those that were asked for before are remembered as long as the change is there.

    Factors are values: whoever writes into their tensors makes another change of them.
    """
    distinct = dict.fromkeys(changes)
    with _LOCK:
        known = {change: _KNOWN[change] for change in distinct if change in _KNOWN}
    if len(known) == len(distinct):
        return known
    groups: defaultdict[tuple[object, ...], list[LowRank]] = defaultdict(list)
    for change in distinct:
        if change not in known:
            groups[(change.up.shape, change.down.shape, change.up.dtype, change.up.device)].append(change)
    for group in groups.values():
        count = max(1, _LARGEST_BATCH_BYTES // (4 * max(1, group[0].up.numel() + group[0].down.numel())))
        for start in range(0, len(group), count):
            batch = group[start : start + count]
            known.update(zip(batch, _measured(batch), strict=True))
    with _LOCK:
        _KNOWN.update({change: known[change] for change in distinct})
    return known


@torch.no_grad()
def _measured(changes: Sequence[LowRank]) -> list[FactorFacts]:
    """Facts of changes of one shape and rank."""
    if changes[0].rank == 0:
        return [FactorFacts(0.0, 0.0, dict.fromkeys(HALVES, 0.0), (0, 0), (0, 0), True) for _ in changes]
    ups = torch.stack([change.up.detach() for change in changes]).float()
    downs = torch.stack([change.down.detach() for change in changes]).float()
    up_sizes, down_sizes = ups.abs(), downs.abs()
    peaks = (up_sizes.amax(1).double() * down_sizes.amax(2).double()).sum(1).tolist()
    rows, columns = _spans(up_sizes.amax(2) != 0), _spans(down_sizes.amax(1) != 0)
    up_energy, down_energy = ups.double().square().sum(1), downs.double().square().sum(2)
    roundings: list[dict[torch.dtype, float]] = [{} for _ in changes]
    for dtype in HALVES:
        up_error = (ups - ups.to(dtype).float()).double().square().sum(1)
        down_error = (downs - downs.to(dtype).float()).double().square().sum(2)
        # a strength that is multiplied into the rounded rows rounds them once more
        energies = (up_error * down_energy + 2 * up_energy * down_error).sum(1).tolist()
        for own, energy in zip(roundings, energies, strict=True):
            own[dtype] = energy
    half = ups.shape[1] * downs.shape[2] / 2
    return [
        FactorFacts(
            peak,
            down_peak,
            errors,
            own_rows,
            own_columns,
            math.isfinite(peak) and _area(own_rows, own_columns) <= half,
        )
        for peak, down_peak, errors, own_rows, own_columns in zip(
            peaks, down_sizes.amax((1, 2)).tolist(), roundings, rows, columns, strict=True
        )
    ]


def _area(rows: Span, columns: Span) -> int:
    return (rows[1] - rows[0]) * (columns[1] - columns[0])


def _spans(is_used: Tensor) -> list[Span]:
    """The first place that is used in every row, and the one behind the last."""
    places = torch.arange(is_used.shape[1], device=is_used.device)
    first = torch.where(is_used, places, is_used.shape[1]).amin(1).tolist()
    behind = torch.where(is_used, places + 1, 0).amax(1).tolist()
    return [(min(start, end), end) for start, end in zip(first, behind, strict=True)]
