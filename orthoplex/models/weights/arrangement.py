"""Factors as products read them: side by side, in the type of the product, those of one concept in one piece."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from orthoplex.adapters import LowRank


@final
class ArrangedFactors:
    """Copies of factors, in which layers of one shape lie one behind the other.

    One call then copies the factors of many layers, by all cores. Factors that were not arranged are copied one by one;
    the numbers are the same.
    """

    def __init__(self) -> None:
        self._copies: WeakKeyDictionary[LowRank, LowRank] = WeakKeyDictionary()

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
        groups: defaultdict[tuple[object, ...], list[LowRank]] = defaultdict(list)
        for _, change in sorted(layers.items()):
            if change not in self._copies:
                groups[(change.up.shape, change.down.shape)].append(change)
        for group in groups.values():
            ups = torch.stack([change.up.detach().to(device, dtype) for change in group])
            downs = torch.stack([change.down.detach().to(device, dtype) for change in group])
            for change, up, down in zip(group, ups, downs, strict=True):
                self._copies[change] = LowRank(up, down)

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
        start = 0
        for changes, own in zip(runs, factors, strict=True):
            stop = start + changes[0].rank
            sources = [self._source(change, ups) for change in changes]
            _copy([source.up[rows] for source in sources], ups[:, :, start:stop], 1.0)
            is_one = len(set(own)) == 1
            target = downs[:, start:stop]
            _copy([source.down[:, columns] for source in sources], target, own[0] if is_one else 1.0)
            if not is_one:
                target.mul_(torch.tensor(own, device=target.device).view(-1, 1, 1))
            start = stop

    def _source(self, change: LowRank, like: Tensor) -> LowRank:
        """The copy of a change where there is one in the type that is asked for; else the change itself."""
        copied = self._copies.get(change)
        fits = copied is not None and (copied.up.dtype, copied.up.device) == (like.dtype, like.device)
        return copied if fits and copied is not None else change


def _copy(sources: Sequence[Tensor], target: Tensor, factor: float) -> None:
    """Copy ``factor`` times matrices of one shape into a stack of them; each is rounded to the stack's type first."""
    spaced = _spaced(sources)
    if spaced is None:
        for source, own in zip(sources, target, strict=True):
            own.copy_(source, non_blocking=True)
        if factor != 1.0:
            target.mul_(factor)
    elif factor != 1.0 and spaced.dtype == target.dtype:
        torch.mul(spaced, factor, out=target)
    else:
        target.copy_(spaced, non_blocking=True)
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
