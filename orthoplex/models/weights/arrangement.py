"""Factors as products read them: side by side, in the type of the product, those of one concept in one piece."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from orthoplex.adapters import LowRank

_StackKey = tuple[LowRank, int, torch.dtype, torch.device]


@final
class ArrangedFactors:
    """Copies of factors, in which layers of one shape lie one behind the other.

    One call then copies the factors of many layers, by all cores. Factors that were not arranged are copied one by one;
    the numbers are the same.
    """

    def __init__(self) -> None:
        self._copies: WeakKeyDictionary[LowRank, LowRank] = WeakKeyDictionary()
        self._stacks: dict[_StackKey, tuple[tuple[LowRank, ...], Sequence[Tensor], Sequence[Tensor]]] = {}

    @property
    def num_bytes(self) -> int:
        """The bytes of all copies."""
        return sum(change.up.nbytes + change.down.nbytes for change in self._copies.values())

    @torch.no_grad()
    def arrange(self, layers: Mapping[str, LowRank], dtype: torch.dtype, device: torch.device) -> None:
        """Copy the factors of one concept; it takes their memory once more, as long as the concept is there.

        Args:
            layers: Layer to its change.
            dtype: Of the copies.
            device: Of the copies.
        """
        self._stacks.clear()
        groups: defaultdict[tuple[object, ...], list[LowRank]] = defaultdict(list)
        for _, change in sorted(layers.items()):
            if change not in self._copies:
                groups[(change.up.shape, change.down.shape)].append(change)
        for group in groups.values():
            ups = torch.stack([change.up.detach().to(device, dtype) for change in group])
            downs = torch.stack([change.down.detach().to(device, dtype) for change in group])
            for change, up, down in zip(group, ups, downs, strict=True):
                self._copies[change] = LowRank(up, down)

    def drop(self, changes: Iterable[LowRank]) -> None:
        """Let go of the copies of some changes."""
        self._stacks.clear()
        for change in changes:
            self._copies.pop(change, None)

    def clear(self) -> None:
        """Let go of all copies."""
        self._stacks.clear()
        self._copies.clear()

    @torch.no_grad()
    def gather(self, runs: Sequence[Sequence[LowRank]], factors: Sequence[Sequence[float]], ups: Tensor, downs: Tensor,
               rows: slice, columns: slice) -> None:  # fmt: skip
        """Write the factors of several layers side by side.

        Args:
            runs: For every run, the changes of the c layers.
            factors: For every run, the numbers that each layer's change is multiplied with.
            ups: ``(c, out, R)``, written.
            downs: ``(c, R, in)``, written; the numbers are multiplied into it.
            rows: The outputs that are taken.
            columns: The inputs that are taken.
        """
        sources = [self._sources(changes, ups) for changes in runs]
        every_up, every_down = [up for up, _ in sources], [down for _, down in sources]
        if every_up[0][0].shape[-2] != ups.shape[1]:
            every_up = [[part[..., rows, :] for part in up] for up in every_up]
        if every_down[0][0].shape[-1] != downs.shape[2]:
            every_down = [[part[..., columns] for part in down] for down in every_down]
        ranks = [changes[0].rank for changes in runs]
        _gather(every_up, ups, ranks, 2)
        if all(factor == 1.0 for own in factors for factor in own):
            _gather(every_down, downs, ranks, 1)
            return
        for down, own, target in zip(every_down, factors, downs.split(ranks, 1), strict=True):
            is_one = len(set(own)) == 1
            _copy(down, target, own[0] if is_one else 1.0)
            if not is_one:
                target.mul_(torch.tensor(own, device=target.device).view(-1, 1, 1))

    def _sources(self, changes: Sequence[LowRank], like: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The ups and downs of several layers: one stack of each where they lie in a row, else a matrix for each layer.

        Stacks are remembered: live sets ask for the same ones again and again.
        """
        own = tuple(changes)
        key = (own[0], len(own), like.dtype, like.device)
        stacks = self._stacks.get(key)
        if stacks is not None and stacks[0] == own:
            return stacks[1:]
        copies = [self._copies.get(change) for change in own]
        fit = [
            copied for copied in copies if copied and (copied.up.dtype, copied.up.device) == (like.dtype, like.device)
        ]
        if len(fit) == len(own):
            up, down = _spaced([copied.up for copied in fit]), _spaced([copied.down for copied in fit])
            if up is not None and down is not None:
                self._stacks[key] = (own, [up], [down])
                return [up], [down]
        sources = fit if len(fit) == len(own) else own
        return [change.up for change in sources], [change.down for change in sources]


def _gather(parts: Sequence[Sequence[Tensor]], target: Tensor, ranks: Sequence[int], dim: int) -> None:
    """Copy the matrices of all runs side by side; by one call where each run has one stack of the target's type."""
    if all(part[0].ndim == target.ndim and part[0].dtype == target.dtype for part in parts):
        torch.cat([part[0] for part in parts], dim, out=target)
        return
    for part, own in zip(parts, target.split(ranks, dim), strict=True):
        _copy(part, own, 1.0)


def _copy(sources: Sequence[Tensor], target: Tensor, factor: float) -> None:
    """Copy ``factor`` times some matrices, or one stack of them; each is rounded to the target's type first."""
    if sources[0].ndim == target.ndim and factor != 1.0:
        torch.mul(sources[0], factor, out=target)
        return
    if sources[0].ndim == target.ndim:
        target.copy_(sources[0], non_blocking=True)
        return
    for source, own in zip(sources, target, strict=True):
        own.copy_(source, non_blocking=True)
    if factor != 1.0:
        target.mul_(factor)


def _spaced(tensors: Sequence[Tensor]) -> Tensor | None:
    """Several matrices as one tensor, if they lie in one storage at equal distances."""
    first = tensors[0]
    if len(tensors) == 1:
        return first[None]
    storage, offset, strides = first.untyped_storage().data_ptr(), first.storage_offset(), first.stride()
    step = tensors[1].storage_offset() - offset
    for number, tensor in enumerate(tensors):
        if (
            tensor.untyped_storage().data_ptr() != storage
            or tensor.storage_offset() != offset + number * step
            or tensor.stride() != strides
            or tensor.dtype != first.dtype
        ):
            return None
    if step < 0:
        return None
    return first.as_strided((len(tensors), *first.shape), (step, *strides))
