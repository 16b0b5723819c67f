"""The interface of changes that can be folded into a base, and checks of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.errors import BaseModelError


class Foldable(Protocol):
    """What can be folded into a base: a concept, or a merge of several."""

    @property
    def layers(self) -> Mapping[str, LowRank] | Mapping[str, Stack]:
        """Layer name to its change: a merge's stack, or a concept's plain factors, at strength 1."""
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
