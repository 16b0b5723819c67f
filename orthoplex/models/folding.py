"""Changes of many weights at once, and their exact undoing.

``W' = round(W + up · down)``: one stacked product per distinct shape, float32 accumulation, one rounding. The weights
that were there are kept, not recomputed: undoing puts the same tensors back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from orthoplex.adapters import LowRank, fold_stack
from orthoplex.concepts import Recipe, Token
from orthoplex.errors import BaseModelError, ConfigurationError


class Foldable(Protocol):
    """What can be folded into a base: a concept, or a merge of several."""

    @property
    def layers(self) -> Mapping[str, LowRank]:
        """Layer name to its change at strength 1."""
        ...

    @property
    def tokens(self) -> Mapping[str, Token]:
        """Token to what stands in its place."""
        ...

    @property
    def recipe(self) -> Recipe:
        """What is in it, and which base it belongs to."""
        ...


class FoldedWeights:
    """The weights of some layers with changes folded in; holds the originals."""

    def __init__(self, layers: Mapping[str, nn.Linear], changes: Mapping[str, LowRank]) -> None:
        """Fold ``changes[name]`` into ``layers[name].weight`` for every name of ``changes``.

        Raises:
            BaseModelError: If a layer is missing in the base or has another shape; then no weight is changed.
            ConfigurationError: If a weight would not be finite; then all weights are restored.
        """
        for name, change in changes.items():
            check_layer(name, change.shape, layers)
        self._originals: list[tuple[Tensor, Tensor]] = []
        groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
        for name, change in changes.items():
            weight = layers[name].weight
            groups[(weight.shape, weight.dtype, weight.device, change.rank)].append(name)
        try:
            for names in groups.values():
                self._fold_group(names, [layers[name] for name in names], [changes[name] for name in names])
        except BaseException:
            self.restore()
            raise

    @torch.no_grad()
    def _fold_group(self, names: list[str], layers: list[nn.Linear], changes: list[LowRank]) -> None:
        """Fold the changes of layers of one shape and rank by one product."""
        device = layers[0].weight.device
        folded = fold_stack(
            torch.stack([layer.weight.detach() for layer in layers]),
            torch.stack([change.up for change in changes]).to(device),
            torch.stack([change.down for change in changes]).to(device),
        )
        _check_finite(names, folded)
        for layer, new in zip(layers, folded, strict=True):
            self._originals.append((layer.weight, layer.weight.data))
            layer.weight.data = new

    def restore(self) -> None:
        """Put the original tensors back, bit for bit; where a cast came in between, its cast of them."""
        for weight, original in reversed(self._originals):
            weight.data = original.to(weight.device, weight.dtype)  # the very tensor where nothing changed
        self._originals.clear()


def fold_weights(layers: Mapping[str, nn.Linear], change: Foldable) -> FoldedWeights:
    """Fold a change's weights into layers.

    Raises:
        BaseModelError: See ``FoldedWeights``.
        ConfigurationError: If a weight would not be finite; names the layer and the strengths.
    """
    try:
        return FoldedWeights(layers, change.layers)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; strengths are {change.recipe.strengths}") from error


def _check_finite(names: list[str], folded: Tensor) -> None:
    lowest, highest = torch.aminmax(folded)  # one pass and no copy, and no number at all if there is one among them
    if math.isfinite(lowest) and math.isfinite(highest):
        return
    name = next(name for name, weight in zip(names, folded, strict=True) if not weight.isfinite().all())
    raise ConfigurationError(f"layer '{name}': with the change, numbers of the weight are no longer finite")


def check_layer(name: str, shape: tuple[int, int], layers: Mapping[str, nn.Linear]) -> None:
    """Refuse a change of a layer that the base lacks, or of another shape.

    Raises:
        BaseModelError: Names the layer, the shape, and what the base has.
    """
    if name not in layers:
        raise BaseModelError(f"layer '{name}' is not in the base, which has {len(layers)} linear layers")
    weight_shape = tuple(layers[name].weight.shape)
    if shape != weight_shape:
        raise BaseModelError(f"layer '{name}': the change has shape {shape}, the base's weight has {weight_shape}")
