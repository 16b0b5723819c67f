"""The engine that folds changes into the weights themselves, and its exact undo.

``W' = round(W + up · diag(s) · down)``: one stacked product per distinct shape and rank, float32 accumulation, one
rounding. The original weights are stored, not recomputed: restoring puts the same tensors back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn

from orthoplex.adapters import fold_stack
from orthoplex.concepts import Ingredient, Stack
from orthoplex.errors import ConfigurationError
from orthoplex.models.weights.engine import WeightEngine
from orthoplex.models.weights.refusals import check_foldable, matrix_shape

_LARGEST_STACK_BYTES = 2**29
"""Of weights of one shape that one product takes, as float32; more layers take several products."""


@final
class FoldedWeights(WeightEngine):
    """Changes that are added to weights and biases; stores the originals."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        owners: Sequence[Ingredient] = (),
        locked: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Prepare folding into modules; see ``WeightEngine``.

        Args:
            modules: Name to module, of all modules of the components; see ``named_modules``.
            owners: See ``WeightEngine``.
            locked: See ``WeightEngine``.
        """
        super().__init__(owners, locked)
        self._modules = modules
        self._changes: dict[str, Stack] = {}
        self._originals: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def changes(self) -> Mapping[str, Stack]:
        """Layer to the change that is folded into it now."""
        return self._changes

    def apply(self, changes: Mapping[str, Stack]) -> None:
        """Fold changes in; see ``WeightEngine.apply``."""
        parameters = check_foldable({name: change.shape for name, change in changes.items()}, self._modules)
        try:
            self._fold(parameters, changes)
        except BaseException:
            before = {name: self._changes[name] for name in changes if name in self._changes}
            self._put_back(changes)
            self._fold({name: parameters[name] for name in before}, before)
            raise
        self._changes.update(changes)

    def restore(self) -> None:
        """Put the original tensors back, bit for bit; if the weights were cast meanwhile, the same cast of them."""
        self._put_back(tuple(self._originals))
        self._changes.clear()
        self.strengths.close()

    def _put_back(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._originals:
                weight, original = self._originals.pop(name)
                # the very tensor where nothing changed
                weight.data = _laid_out(original.to(weight.device, weight.dtype), weight)

    def _fold(self, parameters: Mapping[str, nn.Parameter], changes: Mapping[str, Stack]) -> None:
        """Fold all changes, those of one shape and rank by one product, or by several where they need much memory."""
        groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
        for name, change in changes.items():
            weight = parameters[name]
            groups[(weight.shape, weight.dtype, weight.device, change.rank)].append(name)
        for group in groups.values():
            count = max(1, _LARGEST_STACK_BYTES // (4 * parameters[group[0]].numel()))
            for start in range(0, len(group), count):
                names = group[start : start + count]
                self._fold_group(names, [parameters[name] for name in names], [changes[name] for name in names])

    @torch.no_grad()
    def _fold_group(self, names: list[str], weights: list[Tensor], changes: list[Stack]) -> None:
        device = weights[0].device
        ups = torch.stack([change.up for change in changes])
        strengths = torch.cat([change.strengths for change in changes])
        if not bool((strengths == 1).all()):
            counts = torch.tensor([count for change in changes for _, count in change.owners], device=strengths.device)
            columns = strengths.repeat_interleave(counts).view(len(changes), 1, -1)
            ups.mul_(columns.to(ups.device))  # in place: the stack is a copy already
        folded = fold_stack(
            torch.stack([self._original(name, weight) for name, weight in zip(names, weights, strict=True)]),
            ups.to(device),
            torch.stack([change.down for change in changes]).to(device),
        )
        _check_finite(names, folded)
        for name, weight, new in zip(names, weights, folded, strict=True):
            self._originals.setdefault(name, (weight, weight.data))
            weight.data = _laid_out(new.view(weight.shape), weight)

    def _original(self, name: str, weight: Tensor) -> Tensor:
        """A weight without any change as a matrix, on the device and in the type that the layer has now."""
        values = (
            self._originals[name][1].to(weight.device, weight.dtype) if name in self._originals else weight.detach()
        )
        return values.reshape(matrix_shape(weight.shape))


def _laid_out(values: Tensor, like: Tensor) -> Tensor:
    """Return values as a convolution's weight lies in memory now; the very tensor of any other weight."""
    is_usual = like.ndim != 4 or like.is_contiguous()
    return values if is_usual else values.to(memory_format=torch.channels_last)


def _check_finite(names: list[str], folded: Tensor) -> None:
    lowest, highest = torch.aminmax(folded)  # one pass and no copy; not finite if any number is not
    if math.isfinite(lowest) and math.isfinite(highest):
        return
    name = next(name for name, weight in zip(names, folded, strict=True) if not weight.isfinite().all())
    raise ConfigurationError(f"layer '{name}': with the change, numbers of the weight are no longer finite")
