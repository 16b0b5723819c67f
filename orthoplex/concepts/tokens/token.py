"""Tokens: replacements for the embedding of one word of a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from orthoplex.concepts.tokens.stored import TokenNumbers

TEXT_ENCODER = "text_encoder"
"""The name of a base's first text encoder."""


@dataclass(frozen=True, eq=False)
class Placement:
    """The effect of a token in a base, in one form for all kinds.

    Attributes:
        vectors: Text encoder to the replacement of the token's embedding: ``(dim,)`` for all layers, or ``(L, dim)``
            with a row for each of ``layers``.
        layers: The L cross-attention layers that the rows belong to; empty if one vector serves all.
        keys_values: Cross-attention layer to the additions to its key and to its value at the token's positions,
            ``(2, out)``; empty for none.
        key_value_maps: Cross-attention layer to low-rank changes of the maps to its key and to its value at the token's
            positions, ``(2, r, in)`` and ``(2, out, r)``; empty for none.
    """

    vectors: Mapping[str, Tensor]
    layers: tuple[str, ...] = ()
    keys_values: Mapping[str, Tensor] = field(default_factory=dict)
    key_value_maps: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def own_layers(self) -> tuple[str, ...]:
        """The cross-attention layers that have something of their own; empty if one vector is all."""
        return self.layers or tuple(self.keys_values) or tuple(self.key_value_maps)

    @property
    def is_one_vector(self) -> bool:
        """True if the token is a row of each embedding table and nothing else, which any pipeline folder can hold."""
        return not self.own_layers


class Token(ABC):
    """A replacement for one word of a prompt; all tokens of a concept are of one kind.

    Attributes:
        kind: Its name in ``TOKENS``.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def placement(self) -> Placement:
        """The effect of the token in a base."""

    @classmethod
    @abstractmethod
    def encode(cls, tokens: Mapping[str, Any]) -> TokenNumbers:
        """Write tokens of this kind as numbers, with the blocks and fields that its row in ``TOKENS`` names.

        Args:
            tokens: Name to token; all have the same layers and shapes.
        """

    @classmethod
    @abstractmethod
    def decode(cls, numbers: TokenNumbers) -> Mapping[str, Token]:
        """Read what ``encode`` wrote.

        Raises:
            ConceptFileError: If the numbers do not belong together.
        """


def named_tensors(tokens: Mapping[str, Token]) -> Iterator[tuple[str, Tensor]]:
    """Yield the name (for messages) and value of every tensor of some tokens."""
    for token, item in tokens.items():
        placement = item.placement
        for encoder, vectors in placement.vectors.items():
            yield f"token '{token}'" + (f" of {encoder}" if len(placement.vectors) > 1 else ""), vectors
        for layer, values in placement.keys_values.items():
            yield f"keys_values of token '{token}' in layer '{layer}'", values
        for layer, (down, up) in placement.key_value_maps.items():
            yield f"masked_down of token '{token}' in layer '{layer}'", down
            yield f"masked_up of token '{token}' in layer '{layer}'", up
