"""Tokens with a vector for each cross-attention layer: P+ (Voynov et al., arXiv 2303.09522, section 3)."""

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
from orthoplex.errors import ConceptFileError


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
    def encode(cls, tokens: Mapping[str, LayerVectors]) -> dict[str, Any]:
        """Write ``tokens``: token to base64 of its rows; ``token_layers``: the layers of the first, as of all."""
        return {
            "tokens": {token: encode_token(only_encoder(token, item.vectors)) for token, item in tokens.items()},
            "token_layers": list(next(iter(tokens.values())).layers),
        }

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> dict[str, LayerVectors]:
        """Read what ``encode`` wrote."""
        layers = tuple(fields["token_layers"])
        if len(set(layers)) < len(layers):
            raise ConceptFileError("token_layers names a layer twice, allowed is once")
        if layers and not fields["tokens"]:
            raise ConceptFileError(f"token_layers names {len(layers)} layers and there is no token, allowed: none")
        tokens = {}
        for token, text in fields["tokens"].items():
            with decoding(f"tokens.{token}"):
                tokens[token] = LayerVectors.of(decode_token(text, len(layers)), layers)
        return tokens


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
