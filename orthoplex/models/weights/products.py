"""``W' = round(W + up · diag(s) · down)``, written into the weights that are there, in pieces of bounded memory.

Weights of one shape are taken a few at a time: one batched product of theirs stays in a buffer that the processor's
caches hold, and is added to the originals on the way into the weights. On two cores this is as fast as one
``addmm(out=)`` a weight (``python -m benchmarks.merge_engine``).

A product is made in half precision where the weights are, if rounding the factors costs next to nothing beside rounding
the sum, by the numbers at hand: the expected error stays below 1.1 times that of one rounding.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Run
from orthoplex.errors import ConfigurationError
from orthoplex.models.weights.arrangement import ArrangedFactors
from orthoplex.models.weights.factor_facts import HALVES, FactorFacts, Span
from orthoplex.models.weights.originals import Original
from orthoplex.models.weights.product_traits import LEAST_PRODUCT, full_precision, traits_of

PIECE_BYTES = 2**24
"""Of the buffer of sums, and at most as much again for either factor."""
_MOST_COLUMNS = 4096
"""Of one product; more are added by several."""
_USUAL_FACTOR = 64.0
"""Products in half precision take factors up to this, and down to its inverse."""
_SHARE_OF_ROUNDING = 0.2
"""``√(1 + 0.2) < 1.1``: the error of half-precision factors beside that of rounding the sum, as energies."""


@final
@dataclass(frozen=True, eq=False)
class Target:
    """A weight that a change is written into.

    Attributes:
        name: The layer's name.
        original: The weight, and what it was.
        runs: The runs of the change whose factor is not 0; at least one.
        rows: The rows of the weight that are written; every block of the change is inside or outside of them.
        columns: The columns that are written; likewise.
    """

    name: str
    original: Original
    runs: tuple[Run, ...]
    rows: Span
    columns: Span


@final
@dataclass(frozen=True)
class Block:
    """Runs of a change that concern one block of the weight.

    Attributes:
        runs: Their numbers in the change.
        rows: The rows of the block.
        columns: Its columns.
    """

    runs: tuple[int, ...]
    rows: Span
    columns: Span


@final
@dataclass(frozen=True)
class _Plan:
    """How a target is computed; targets with one plan are computed together."""

    shape: torch.Size
    stored: torch.dtype
    device: torch.device
    computed: torch.dtype
    rows: Span
    columns: Span
    ranks: tuple[int, ...]
    blocks: tuple[Block, ...]
    is_bounded: bool


def blocks_of(runs: Sequence[Run], shape: tuple[int, int], facts: Mapping[LowRank, FactorFacts]) -> tuple[Block, ...]:
    """Divide the runs of a change by the blocks outside of which they are zero.

    Runs whose block is more than half of the weight concern all of it, and so do numbers that are not finite.

    Args:
        runs: Of one change.
        shape: ``(out, in)`` of the weight.
        facts: Of all runs' changes.
    """
    whole = ((0, shape[0]), (0, shape[1]))
    if not any(facts[run.change].is_small for run in runs):
        return (Block(tuple(range(len(runs))), *whole),)
    numbers: defaultdict[tuple[Span, Span], list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        own = facts[run.change]
        numbers[(own.rows, own.columns) if own.is_small else whole].append(number)
    return tuple(Block(tuple(own), rows, columns) for (rows, columns), own in numbers.items())


def length(span: Span) -> int:
    """Return the number of places in a span."""
    return span[1] - span[0]


def are_apart(blocks: Sequence[Block]) -> bool:
    """Return True if no two blocks share a weight."""
    return not any(
        _meet(one.rows, other.rows) and _meet(one.columns, other.columns)
        for number, one in enumerate(blocks)
        for other in blocks[:number]
    )


@final
class Products:
    """Writes changes into weights; holds the buffers meanwhile."""

    def __init__(self, arranged: ArrangedFactors) -> None:
        """Begin without buffers; the first change makes them.

        Args:
            arranged: Factors that lie in memory as products read them.
        """
        self._arranged = arranged
        self._buffers: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def clear(self) -> None:
        """Let go of the buffers."""
        self._buffers.clear()

    @property
    def num_bytes(self) -> int:
        """The bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    @torch.no_grad()
    def write(self, targets: Sequence[Target], facts: Mapping[LowRank, FactorFacts]) -> None:
        """Write changes into their weights.

        Args:
            targets: What is written.
            facts: Of all runs' changes.

        Raises:
            ConfigurationError: If a number would not be finite; weights of other targets may be written then.
        """
        groups: defaultdict[_Plan, list[Target]] = defaultdict(list)
        for target in targets:
            groups[_plan(target, facts)].append(target)
        with full_precision():
            for plan, group in groups.items():
                for piece, size in _pieces(group, plan):
                    self._write_piece(piece, size, plan)

    def _write_piece(self, piece: Sequence[Target], size: int, plan: _Plan) -> None:
        """Write a few targets; their batch is filled up to a size with whatever the buffers hold."""
        first = piece[0]
        shape = (size, length(first.rows), length(first.columns))
        sums = self._buffer("sums", shape, plan)
        originals = [_original(target, plan) for target in piece]
        is_rounded = plan.computed == plan.stored and plan.computed in HALVES
        if is_rounded:  # the product adds the weights itself, before its one rounding
            for own, values in zip(sums, originals, strict=False):
                own.copy_(values, non_blocking=True)
        self._add_products(sums, piece, plan, is_empty=not is_rounded)
        for own, values, target in zip(sums, originals, piece, strict=False):
            place = _place(target)
            if place is not None and plan.is_bounded and not is_rounded and values.device == place.device:
                torch.add(values, own, out=place)
                continue
            if not is_rounded:
                own.add_(values.to(own.device, non_blocking=True))
            if not plan.is_bounded:
                _check_finite(own, target, plan.stored)
            if place is not None:
                place.copy_(own)
            else:  # convolutions in channels last; they are written by whole rows
                weight = target.original.weight.data
                weight[slice(*target.rows)].copy_(own.view(-1, *weight.shape[1:]))

    def _add_products(self, sums: Tensor, piece: Sequence[Target], plan: _Plan, *, is_empty: bool) -> None:
        """Add the products of all blocks; a buffer that is empty gets them in the place of what it holds.

        A block is computed in memory of its own, so that its bits do not depend on what is written beside it.
        """
        first = piece[0]
        whole = (first.rows, first.columns)
        if is_empty and [(block.rows, block.columns) for block in plan.blocks] != [whole]:
            sums.zero_()
        for block in plan.blocks:
            rows, columns = _shared(block.rows, first.rows), _shared(block.columns, first.columns)
            if length(rows) <= 0 or length(columns) <= 0:
                continue
            inner = sums[:, slice(*_moved(rows, first.rows)), slice(*_moved(columns, first.columns))]
            own = sums
            if (rows, columns) != whole:
                own = self._buffer("block", (len(sums), length(rows), length(columns)), plan)
                own.copy_(inner)
            elif is_empty and len(plan.blocks) > 1:
                own = self._buffer("block", (len(sums), length(rows), length(columns)), plan)
            self._multiply(own, piece, block, (rows, columns), plan, is_empty=is_empty)
            if own is not sums and is_empty:
                inner.add_(own)
            elif own is not sums:
                inner.copy_(own)

    def _multiply(
        self, sums: Tensor, piece: Sequence[Target], block: Block, place: tuple[Span, Span], plan: _Plan, *,
        is_empty: bool,
    ) -> None:  # fmt: skip
        """Add the products of one block to a buffer, or let an empty one hold them."""
        for position, numbers in enumerate(_limited(block.runs, plan.ranks)):
            factors = self._factors(piece, numbers, *place, len(sums), plan)
            if is_empty and position == 0:
                torch.bmm(*factors, out=sums)
            else:
                sums.baddbmm_(*factors)

    def _factors(
        self, piece: Sequence[Target], numbers: Sequence[int], rows: Span, columns: Span, size: int, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        """The factors of some runs side by side: ``(c, out, R)`` and ``(c, R, in)``, with their strengths."""
        runs = [[target.runs[number].change for target in piece] for number in numbers]
        factors = [[target.runs[number].factor for target in piece] for number in numbers]
        rank = sum(plan.ranks[number] for number in numbers)
        ups = self._buffer("ups", (size, length(rows), rank), plan)
        downs = self._buffer("downs", (size, rank, length(columns)), plan)
        self._arranged.gather(runs, factors, ups[: len(piece)], downs[: len(piece)], slice(*rows), slice(*columns))
        return ups, downs

    def _buffer(self, name: str, shape: tuple[int, int, int], plan: _Plan) -> Tensor:
        """A part of a buffer that is used again and again."""
        size = math.prod(shape)
        key = (name, plan.device, plan.computed)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(
                max(size, PIECE_BYTES // plan.computed.itemsize), dtype=plan.computed, device=plan.device
            )
            self._buffers[key] = buffer
        return buffer[:size].view(shape)


def _plan(target: Target, facts: Mapping[LowRank, FactorFacts]) -> _Plan:
    weight = target.original.weight
    blocks = blocks_of(target.runs, (target.original.values.shape[0], target.original.values.shape[1]), facts)
    return _Plan(
        weight.shape,
        weight.dtype,
        weight.device,
        _product_type(target, blocks, facts),
        target.rows,
        target.columns,
        tuple(run.change.rank for run in target.runs),
        blocks,
        _is_bounded(target, facts),
    )


def _original(target: Target, plan: _Plan) -> Tensor:
    """The part of a weight that is written, as it was; as its cast where the weight was cast afterwards."""
    values = target.original.values
    if values.dtype != plan.stored:
        values = values.to(plan.stored)
    return _part(values, target)


def _place(target: Target) -> Tensor | None:
    """The part of a weight that is written, as a matrix; None where it does not lie in memory as one."""
    weight = target.original.weight.data
    if weight.ndim > 2 and not weight.is_contiguous():
        return None
    matrix = weight if weight.ndim == 2 else weight.view(target.original.values.shape)
    return _part(matrix, target)


def _part(matrix: Tensor, target: Target) -> Tensor:
    if matrix.shape == (length(target.rows), length(target.columns)):
        return matrix
    return matrix[slice(*target.rows), slice(*target.columns)]


def _product_type(target: Target, blocks: Sequence[Block], facts: Mapping[LowRank, FactorFacts]) -> torch.dtype:
    """The type in which a target is computed: half precision where that costs no accuracy, at least float32 else."""
    weight, original = target.original.weight, target.original
    if weight.dtype not in HALVES or original.values.dtype != weight.dtype:
        return torch.promote_types(weight.dtype, torch.float32)
    rank = sum(run.change.rank for run in target.runs)
    if any(not 1 / _USUAL_FACTOR <= abs(run.factor) <= _USUAL_FACTOR for run in target.runs):
        return torch.float32  # rows times a factor may leave the numbers of the type
    if any(_size(block, target.runs) < LEAST_PRODUCT for block in blocks):
        return torch.float32  # libraries have other kernels for small ones, which may round between
    if rank > _MOST_COLUMNS or not are_apart(blocks) or not traits_of(weight.dtype, weight.device).is_exact:
        return torch.float32  # a sum that is added to again is rounded again
    error = sum(run.factor**2 * facts[run.change].roundings[weight.dtype] for run in target.runs)
    return weight.dtype if error <= _SHARE_OF_ROUNDING * original.rounding else torch.float32


def _size(block: Block, runs: Sequence[Run]) -> int:
    """The multiplications of a block's product."""
    return length(block.rows) * length(block.columns) * sum(runs[number].change.rank for number in block.runs)


def _is_bounded(target: Target, facts: Mapping[LowRank, FactorFacts]) -> bool:
    """True if no number can leave the finite ones, whatever its place."""
    highest = 0.99 * torch.finfo(target.original.weight.dtype).max
    size, widest = target.original.peak, 1.0
    for run in target.runs:
        factor, own = abs(run.factor), facts[run.change]
        size += factor * own.peak
        widest = max(widest, factor, factor * own.down_peak)
    return size < highest and widest < highest  # rows are multiplied with the factor first


def _pieces(group: Sequence[Target], plan: _Plan) -> Iterator[tuple[Sequence[Target], int]]:
    """Targets of one plan, a few at a time, with the size of their batch; a part of the rows of one that is too large.

    A number is computed alike, whatever else is in its group: sizes are multiples of the step in which batches are the
    same.
    """
    num_rows, num_columns = length(plan.rows), length(plan.columns)
    rank = min(sum(plan.ranks), _MOST_COLUMNS)
    widest = max(num_rows * num_columns, rank * num_rows, rank * num_columns, 1)
    step = traits_of(plan.computed, plan.device).batch_step
    count = PIECE_BYTES // (plan.computed.itemsize * widest)
    if count:
        count = max(step, count // step * step) if step else 1
        for start in range(0, len(group), count):
            piece = group[start : start + count]
            yield piece, -(-len(piece) // max(step, 1)) * max(step, 1)
        return
    rows = max(1, PIECE_BYTES // (plan.computed.itemsize * max(num_columns, rank, 1)))
    for target in group:
        for start in range(*target.rows, rows):
            yield [replace(target, rows=(start, min(start + rows, target.rows[1])))], 1


def _limited(numbers: Sequence[int], ranks: Sequence[int]) -> Iterator[list[int]]:
    """Runs of a block, as many at a time as one product takes."""
    chosen: list[int] = []
    for number in numbers:
        if chosen and sum(ranks[other] for other in (*chosen, number)) > _MOST_COLUMNS:
            yield chosen
            chosen = []
        chosen.append(number)
    yield chosen


def _check_finite(values: Tensor, target: Target, stored: torch.dtype) -> None:
    lowest, highest = torch.aminmax(values.to(stored))  # not finite if any number is not
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ConfigurationError(f"layer '{target.name}': with the change, numbers of the weight are no longer finite")


def _meet(one: Span, other: Span) -> bool:
    return length(_shared(one, other)) > 0


def _shared(one: Span, other: Span) -> Span:
    return max(one[0], other[0]), min(one[1], other[1])


def _moved(span: Span, outer: Span) -> Span:
    """A span as it is counted from the start of an outer one."""
    return span[0] - outer[0], span[1] - outer[0]
