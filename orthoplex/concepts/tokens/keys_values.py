"""Tokens that add to the keys and values of cross-attention layers where they stand.

Layer l computes ``K = W_k h + δk_l`` and ``V = W_v h + δv_l`` at the token's positions; its features stay those of a
vector that does not learn. Reference: Tewel et al., Perfusion, arXiv 2305.01644, in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from orthoplex.concepts.blocks import TOKENS_BLOCK
from orthoplex.concepts.tokens.learning import TokenLearning
from orthoplex.concepts.tokens.stored import TokenNumbers, stacked, unstacked
from orthoplex.concepts.tokens.token import TEXT_ENCODER, Placement, Token
from orthoplex.errors import ConceptFileError


@final
@dataclass(frozen=True, eq=False)
class KeysValues(Token):
    """A vector for all layers, and a key and a value for each.

    Attributes:
        vectors: Text encoder to ``(dim,)``.
        keys_values: Layer to the additions to its key and to its value, ``(2, out)``.
    """

    kind = "keys-values"

    vectors: Mapping[str, Tensor]
    keys_values: Mapping[str, Tensor]

    @staticmethod
    def of(vector: Tensor, keys_values: Mapping[str, Tensor]) -> KeysValues:
        """Return the token of a base with one text encoder.

        Args:
            vector: ``(dim,)``.
            keys_values: Layer to ``(2, out)``.
        """
        return KeysValues({TEXT_ENCODER: vector}, keys_values)

    @property
    def placement(self) -> Placement:
        """The vectors in the place of the embeddings, and the layers' additions."""
        return Placement(self.vectors, keys_values=self.keys_values)

    @classmethod
    def encode(cls, tokens: Mapping[str, KeysValues]) -> TokenNumbers:
        """Write the blocks ``tokens``, text encoder to ``(k, dim)``, and ``keys_values``, layer to ``(k, 2, out)``."""
        for token, item in tokens.items():
            if not item.keys_values:
                raise ConceptFileError(f"keys_values of token '{token}' name 0 layers, allowed is at least 1")
        vectors, added = ([getattr(item, name) for item in tokens.values()] for name in ("vectors", "keys_values"))
        return TokenNumbers(tuple(tokens), {TOKENS_BLOCK: stacked(vectors), "keys_values": stacked(added)})

    @classmethod
    def decode(cls, numbers: TokenNumbers) -> dict[str, KeysValues]:
        """Read what ``encode`` wrote."""
        vectors, added = (unstacked(numbers.blocks[name], len(numbers.names)) for name in (TOKENS_BLOCK, "keys_values"))
        return {token: KeysValues(*parts) for token, *parts in zip(numbers.names, vectors, added, strict=True)}


class _Learning(TokenLearning):
    """Keys, unless they are locked, and values learn in units of each layer's own size; the embedding does not.

    A row holds the key (unless keys are locked) and the value of every layer, layer by layer. The addition is the row's
    part times the layer's unit. AdamW moves every number equally far. With these units it moves keys and values by
    the same share of their size as embeddings, so one learning rate suits all layers.
    """

    _parts: int

    @property
    def size(self) -> int:
        """The number of numbers in a row."""
        return self._parts * sum(self.ground.key_widths.values())

    @cached_property
    def units(self) -> Mapping[str, tuple[float, float]]:
        """Layer to the unit of its keys and that of its values."""
        return self.ground.units()

    def initial(self) -> Tensor:
        """Return zeros, ``(k, size)``."""
        first = next(iter(self.start.values()))
        return first.new_zeros(len(first), self.size)

    def tokens(self, rows: Tensor) -> list[KeysValues]:
        """Return a token for every row."""
        layers = self.layers(rows)
        return [
            KeysValues(
                {encoder: vectors[i] for encoder, vectors in self.start.items()},
                {layer: values[i] for layer, values in layers.items()},
            )
            for i in range(len(rows))
        ]

    def layers(self, rows: Tensor) -> dict[str, Tensor]:
        """Return every layer's additions to keys and values of k tokens, ``(k, 2, out)``, from rows ``(k, size)``."""
        widths = self.ground.key_widths
        parts = rows.split([width for width in widths.values() for _ in range(self._parts)], dim=1)
        added = {}
        for i, layer in enumerate(widths):
            *keys, values = parts[i * self._parts : (i + 1) * self._parts]
            key = keys[0] * self.units[layer][0] if keys else torch.zeros_like(values)
            added[layer] = torch.stack([key, values * self.units[layer][1]], dim=1)
        return added


@final
class LearnedKeysValues(_Learning):
    """Keys and values learn."""

    _parts = 2


@final
class LearnedValues(_Learning):
    """Values learn; keys stay what the layer computes for the token's own vector."""

    _parts = 1
