"""Tokens with a vector for each cross-attention layer: P+ (Voynov et al., arXiv 2303.09522, section 3)."""

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
class LayerVectors(Token):
    """A vector of its own for every cross-attention layer.

    Attributes:
        vectors: Text encoder to ``(L, dim)``.
        layers: The names of the L layers, in the order of the rows.
    """

    kind = "layer-vectors"

    vectors: Mapping[str, Tensor]
    layers: tuple[str, ...]

    @staticmethod
    def of(vectors: Tensor, layers: tuple[str, ...]) -> LayerVectors:
        """Return the token of a base with one text encoder.

        Args:
            vectors: ``(L, dim)``.
            layers: The names of the L layers.
        """
        return LayerVectors({TEXT_ENCODER: vectors}, layers)

    @property
    def placement(self) -> Placement:
        """The vectors, layer by layer in the place of the embeddings."""
        return Placement(self.vectors, self.layers)

    @classmethod
    def encode(cls, tokens: Mapping[str, LayerVectors]) -> TokenNumbers:
        """Write the block ``tokens``, text encoder to ``(k, L, dim)``, and ``token_layers``, the layers of all."""
        layers = list(next(iter(tokens.values())).layers)
        block = stacked(item.vectors for item in tokens.values())
        return TokenNumbers(tuple(tokens), {TOKENS_BLOCK: block}, {"token_layers": layers})

    @classmethod
    def decode(cls, numbers: TokenNumbers) -> dict[str, LayerVectors]:
        """Read what ``encode`` wrote."""
        layers, rows = (
            tuple(numbers.fields["token_layers"]),
            unstacked(numbers.blocks[TOKENS_BLOCK], len(numbers.names)),
        )
        return {token: LayerVectors(row, layers) for token, row in zip(numbers.names, rows, strict=True)}


@final
class LearnedLayerVectors(TokenLearning):
    """One vector a token and layer learns; all layers start at the token's embedding."""

    def initial(self) -> Tensor:
        """Return the embeddings once for each layer, ``(k, L, Σ dim)``."""
        start = torch.cat(list(self.start.values()), dim=-1)
        return start.unsqueeze(1).repeat(1, len(self.ground.key_widths), 1)

    def tokens(self, rows: Tensor) -> list[LayerVectors]:
        """Return a token for every row."""
        layers, parts = tuple(self.ground.key_widths), self._split(rows)
        return [LayerVectors({encoder: part[i] for encoder, part in parts.items()}, layers) for i in range(len(rows))]
