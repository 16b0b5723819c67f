"""Where in a picture a concept works: weights of each concept's columns at every position of a layer's input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from orthoplex.errors import ConfigurationError

Sees = Callable[[str], str]
"""Layer -> what it sees; see ``concepts.layer_table.Sees``."""


@final
class TokenMasks:
    """Masks of concepts, brought to the positions of every layer.

    Layers that see positions of the picture are masked, in rows of their grid; those that see text alone, or the time,
    are not: what a concept changes there reaches the whole picture. Layers that see text and picture side by side are
    refused, as their positions do not tell which is which.
    """

    def __init__(self, masks: Mapping[str, Tensor], sees: Sees) -> None:
        """Take masks.

        Args:
            masks: Content hash of a concept to ``(height, width)`` in [0, 1], all of one shape; concepts without one
                work everywhere.
            sees: What each layer sees.

        Raises:
            ConfigurationError: If a mask is no matrix of such numbers, or shapes differ.
        """
        for owner, mask in masks.items():
            if not isinstance(mask, Tensor):
                raise ConfigurationError(f"mask of {owner} is a {type(mask).__name__}; allowed is a tensor")
            if mask.ndim != 2 or not mask.numel() or not bool(((mask >= 0) & (mask <= 1)).all()):
                raise ConfigurationError(
                    f"mask of {owner} has shape {tuple(mask.shape)} and numbers from {_edge(mask, 'min')} to "
                    f"{_edge(mask, 'max')}; allowed are (height, width) and numbers from 0 to 1"
                )
        if len({tuple(mask.shape) for mask in masks.values()}) > 1:
            shapes = ", ".join(str(tuple(mask.shape)) for mask in masks.values())
            raise ConfigurationError(f"masks have shapes {shapes}; allowed is one shape for all")
        self._masks, self._sees = {owner: mask.float() for owner, mask in masks.items()}, sees
        self._resized: dict[tuple[str, int, int], Tensor] = {}

    def check(self, layer: str) -> None:
        """Refuse a layer whose positions are not those of a picture alone.

        Raises:
            ConfigurationError: Names the layer.
        """
        if self._masks and self._sees(layer) == "both":
            raise ConfigurationError(
                f"layer '{layer}' sees text and picture side by side; masks are allowed where layers see one of them"
            )

    def of_layer(self, layer: str, positions: Sequence[int], owners: Sequence[tuple[str | None, int]]) -> Tensor | None:
        """Return the weight of every column at every position, ``(…, R)``; None where all are 1.

        Args:
            layer: The layer's name.
            positions: Shape of its input without batch and channels: ``(tokens,)``, ``(height, width)``, or nothing.
            owners: For every run of columns its owner and their number.

        Raises:
            ConfigurationError: If the tokens are no grid of the masks' aspect.
        """
        if self._sees(layer) != "picture" or not any(owner in self._masks for owner, _ in owners):
            return None
        height, width = self._grid(layer, positions)
        columns = [self._of_owner(owner, height, width).flatten()[:, None].expand(-1, count) for owner, count in owners]
        return torch.cat(columns, 1).view(*positions, -1)

    def _of_owner(self, owner: str | None, height: int, width: int) -> Tensor:
        key = (owner or "", height, width)
        if key not in self._resized:
            first = next(iter(self._masks.values()))
            mask = self._masks.get(owner or "", first.new_ones(1, 1))
            self._resized[key] = functional.interpolate(mask[None, None], (height, width), mode="area")[0, 0]
        return self._resized[key]

    def _grid(self, layer: str, positions: Sequence[int]) -> tuple[int, int]:
        if len(positions) == 2:
            return positions[0], positions[1]
        height, width = next(iter(self._masks.values())).shape
        tokens = math.prod(positions)
        rows = round(math.sqrt(tokens * height / width))
        columns = tokens // rows if rows else 0
        if len(positions) != 1 or rows * columns != tokens or abs(rows * width - columns * height) > max(height, width):
            raise ConfigurationError(
                f"layer '{layer}' has positions {tuple(positions)}; allowed with masks of {height} x {width} are grids "
                "of their aspect"
            )
        return rows, columns


def _edge(mask: Tensor, which: str) -> float:
    return float(getattr(mask, which)()) if mask.numel() else math.nan
