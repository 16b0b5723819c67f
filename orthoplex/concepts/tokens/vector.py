"""Tokens with one vector, the same for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.concepts.blocks import TOKENS_BLOCK
from orthoplex.concepts.tokens.learning import TokenLearning
from orthoplex.concepts.tokens.stored import TokenNumbers, stacked, unstacked
from orthoplex.concepts.tokens.token import TEXT_ENCODER, Placement, Token


@final
@dataclass(frozen=True, eq=False)
class Vector(Token):
    """A row of each text encoder's embedding table.

    Attributes:
        vectors: Text encoder to ``(dim,)``.
    """

    kind = "vector"

    vectors: Mapping[str, Tensor]

    @staticmethod
    def of(vector: Tensor) -> Vector:
        """Return the token of a base with one text encoder.

        Args:
            vector: ``(dim,)``.
        """
        return Vector({TEXT_ENCODER: vector})

    @property
    def placement(self) -> Placement:
        """The vectors, in the place of the embeddings."""
        return Placement(self.vectors)

    @classmethod
    def encode(cls, tokens: Mapping[str, Vector]) -> TokenNumbers:
        """Write the block ``tokens``: text encoder to ``(k, dim)``."""
        return TokenNumbers(tuple(tokens), {TOKENS_BLOCK: stacked(item.vectors for item in tokens.values())})

    @classmethod
    def decode(cls, numbers: TokenNumbers) -> dict[str, Vector]:
        """Read what ``encode`` wrote."""
        rows = unstacked(numbers.blocks[TOKENS_BLOCK], len(numbers.names))
        return {token: Vector(row) for token, row in zip(numbers.names, rows, strict=True)}


@final
class LearnedVectors(TokenLearning):
    """One vector a token learns, for all layers; it starts at the token's embedding."""

    def initial(self) -> Tensor:
        """Return the embeddings, ``(k, Σ dim)`` over text encoders."""
        return torch.cat(list(self.start.values()), dim=-1)

    def tokens(self, rows: Tensor) -> list[Vector]:
        """Return a token for every row."""
        parts = self._split(rows)
        return [Vector({encoder: part[i] for encoder, part in parts.items()}) for i in range(len(rows))]


@final
class NoVectors(TokenLearning):
    """No tokens: a word of the base's own vocabulary calls the concept."""

    def initial(self) -> Tensor:
        """Return no rows, ``(0, 1)``."""
        return torch.zeros(0, 1)

    def tokens(self, rows: Tensor) -> list[Vector]:
        """Return no token."""
        return []
