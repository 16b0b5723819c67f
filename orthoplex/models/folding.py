"""Changes of many weights at once, and their exact undoing.

``W' = round(W + up · down)``: one stacked product per distinct shape, float32 accumulation, one rounding. The weights
that were there are kept, not recomputed: undoing puts the same tensors back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from orthoplex.adapters import LowRank, fold_stack
from orthoplex.errors import BaseModelError, ConfigurationError


class Foldable(Protocol):
    """What can be folded into a base: a concept, or a merge of several."""

    @property
    def layers(self) -> Mapping[str, LowRank]:
        """Layer name to its change at strength 1."""
        ...

    @property
    def tokens(self) -> Mapping[str, Tensor]:
        """Token to its embedding ``(dim,)``, or ``(L, dim)`` for each of ``token_layers``."""
        ...

    @property
    def token_layers(self) -> Sequence[str]:
        """The cross-attention layers that the rows of layer-wise tokens belong to; empty where there are none."""
        ...

    @property
    def keys_values(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Token to what every cross-attention layer adds to its key and value there, layer name to ``(2, out)``."""
        ...

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What is in it, as JSON values; ``base.hash`` names the base it belongs to."""
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
        raise ConfigurationError(f"{error}; strengths are {_strengths(change.recipe)}") from error


def _strengths(recipe: Mapping[str, Any]) -> str:
    concepts = [f"{concept['name']}@{concept.get('strength', 1.0):g}" for concept in recipe.get("concepts", ())]
    return ", ".join([*concepts, f"scale {recipe.get('scale', 1.0):g}"])


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


def check_token_layers(given: Sequence[str], layers: Sequence[str]) -> None:
    """Refuse tokens whose rows belong to other cross-attention layers than the base has, or in another order.

    Raises:
        BaseModelError: Names a layer, and what the base has.
    """
    _check_names("tokens have a vector for each", given, layers)
    if tuple(given) != tuple(layers):
        raise BaseModelError(
            f"tokens have vectors for the cross-attention layers in the order {', '.join(given)}; "
            f"allowed is {', '.join(layers)}"
        )


def check_keys_values(tokens: Mapping[str, Mapping[str, Tensor]], widths: Mapping[str, int]) -> None:
    """Refuse keys and values of other cross-attention layers than the base has, or of another width.

    Args:
        tokens: Token to layer to ``(2, out)``.
        widths: The base's layers to their ``out``.

    Raises:
        BaseModelError: Names the token, the layer, and what the base has.
    """
    for token, layers in tokens.items():
        _check_names(f"token '{token}' has a key and a value for each", tuple(layers), tuple(widths))
        for layer, values in layers.items():
            if tuple(values.shape) != (2, widths[layer]):
                raise BaseModelError(
                    f"token '{token}': key and value of layer '{layer}' have shape {tuple(values.shape)}, "
                    f"allowed is (2, {widths[layer]})"
                )


def _check_names(what: str, given: Sequence[str], layers: Sequence[str]) -> None:
    for names, others, where in ((given, layers, "not in the base"), (layers, given, "missing in the tokens")):
        strangers = [name for name in names if name not in others]
        if strangers:
            raise BaseModelError(
                f"{what} of {len(given)} cross-attention layers, the base has {len(layers)}; "
                f"layer '{strangers[0]}' is {where}"
            )
