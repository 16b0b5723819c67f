"""Tokens with one vector, the same for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.concepts.coding import decode_token, encode_token
from orthoplex.concepts.tokens.learning import TokenLearning
from orthoplex.concepts.tokens.stored import decoding, only_encoder
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
    def encode(cls, tokens: Mapping[str, Vector]) -> dict[str, Any]:
        """Write ``tokens``: token to base64 of its vector."""
        return {"tokens": {token: encode_token(only_encoder(token, item.vectors)) for token, item in tokens.items()}}

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> dict[str, Vector]:
        """Read what ``encode`` wrote."""
        tokens = {}
        for token, text in fields["tokens"].items():
            with decoding(f"tokens.{token}"):
                tokens[token] = Vector.of(decode_token(text))
        return tokens


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
