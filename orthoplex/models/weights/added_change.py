"""The change of one layer, computed beside it: ``W x + up · diag(s) · down x`` as a forward hook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthoplex.adapters import LowRank
from orthoplex.concepts import Run, Stack
from orthoplex.errors import BaseModelError
from orthoplex.models.weights.quantised import weight_shape
from orthoplex.models.weights.token_masks import TokenMasks

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@final
@dataclass(frozen=True, eq=False)
class RowStack:
    """The changes of one layer by several sets of concepts, of which each row of a batch uses one.

    Attributes:
        change: The columns of all sets, at strength 1; those that sets share are there once.
        strengths: Of every row and column, ``(n, R)`` float32; 0 where a row's set has no such column.
    """

    change: Stack
    strengths: Tensor

    @staticmethod
    def of(sets: Sequence[Stack | None]) -> RowStack | None:
        """Return the changes of one layer; None if no set has one.

        Args:
            sets: For every row its change of the layer, or None for none.
        """
        runs: dict[tuple[str | None, LowRank], list[float]] = {}
        for row, change in enumerate(sets):
            for run in () if change is None else change.runs:
                runs.setdefault((run.owner, run.change), [0.0] * len(sets))[row] += run.factor
        if not runs:
            return None
        ranks = torch.tensor([change.rank for _, change in runs])
        strengths = torch.tensor(list(runs.values()), dtype=torch.float32).repeat_interleave(ranks, 0)
        return RowStack(Stack(tuple(Run(owner, change) for owner, change in runs)), strengths.T.contiguous())


@final
class AddedChange:
    """A hook that adds a change to its layer's output, in the type and on the device of that output.

    Attributes:
        change: The change.
        masks: Weights of its columns at every position, or None.
    """

    change: Stack
    masks: TokenMasks | None

    def __init__(self, name: str, change: Stack, rows: Tensor | None = None) -> None:
        """Take a change; its factors are brought to the layer's type and device at the first call, once.

        Args:
            name: The name of the layer, or of its bias.
            change: Of the layer's weight, or of its bias.
            rows: The strengths of a ``RowStack``; None for one set.
        """
        self.change, self.masks, self._name, self._rows = change, None, name, rows
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None

    def set(self, change: Stack) -> None:
        """Take another change in the place of this one; other strengths of the same factors are copied in."""
        is_same = len(change.runs) == len(self.change.runs) and all(
            new.change is old.change and new.gain == old.gain
            for new, old in zip(change.runs, self.change.runs, strict=True)
        )
        self.change = change
        if not is_same:
            before, self._factors = self._factors, None
            if before is not None:
                self.place(before[0].dtype, before[0].device)
        elif self._factors is not None:
            self._factors[1].copy_(change.column_strengths)

    def __call__(self, module: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return a layer's output with the change of it.

        Args:
            module: The layer.
            inputs: What it was called with.
            named: Likewise, by name.
            output: What it returned.

        Raises:
            BaseModelError: If the batch is no multiple of the rows.
            ConfigurationError: If masks do not fit the layer's positions.
        """
        down, strengths, up = self._placed(output)
        dimensions = len(module.kernel_size) if isinstance(module, _CONVOLUTIONS) else 0
        weights = self._weights(strengths, output, dimensions)
        if self._name.endswith(".bias"):
            added = functional.linear(down[:, 0] * weights, up)
            placed = added.view(-1, *(1,) * dimensions) if added.ndim == 1 else added.movedim(-1, -1 - dimensions)
            return output + placed
        x = (inputs[0] if inputs else named["input"]).to(output.dtype)
        if not isinstance(module, _CONVOLUTIONS):
            return output + functional.linear(functional.linear(x, down) * weights, up).to(output.dtype)
        if module.groups > 1:  # each group of outputs reads inputs of its own
            delta = functional.linear((down.T * weights), up).T.reshape(weight_shape(module))
            return output + module._conv_forward(x, delta, None).to(output.dtype)
        kernels = down.view(-1, *weight_shape(module)[1:])
        directions = module._conv_forward(x, kernels, None).movedim(-1 - dimensions, -1)
        return output + functional.linear(directions * weights, up).movedim(-1, -1 - dimensions).to(output.dtype)

    def _weights(self, strengths: Tensor, output: Tensor, dimensions: int) -> Tensor:
        """The strengths of all columns, for rows and positions of an output where these differ, ``(…, R)``."""
        if self._rows is None and self.masks is None:
            return strengths
        is_batch = output.ndim > 1 + dimensions
        positions = output.shape[-dimensions:] if dimensions else output.shape[1 if is_batch else 0 : -1]
        weights = strengths
        if self._rows is not None:
            batch = output.shape[0] if is_batch else 1
            if batch % len(strengths):
                raise BaseModelError(
                    f"layer '{self._name}' is given a batch of {batch}, and {len(strengths)} rows have concepts of "
                    f"their own; allowed are multiples of {len(strengths)}"
                )
            weights = strengths.repeat(batch // len(strengths), 1).view(batch, *(1,) * len(positions), -1)
        masks = None if self.masks is None else self.masks.of_layer(self._name, positions, self.change.owners)
        return weights if masks is None else weights * masks.to(weights)

    def place(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Bring down, strengths and up to a type and a device, and return them; layers ask for the same ones usually.

        Args:
            dtype: The type of the layer's outputs.
            device: Their device.
        """
        with torch.inference_mode(False), torch.no_grad():  # a later training may read them, too
            change = self.change
            strengths = change.column_strengths if self._rows is None else self._rows
            placed = (
                change.down.to(device, dtype),
                strengths.to(device, dtype, copy=True),
                change.up.to(device, dtype),
            )
        self._factors = placed
        return placed

    def _placed(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Down, strengths and up in the type and on the device of an output."""
        factors = self._factors
        if factors is None or factors[0].dtype != output.dtype or factors[0].device != output.device:
            return self.place(output.dtype, output.device)
        return factors
