"""Tokens with a LoRA of keys and values that works where they stand and nowhere else.

Layer l computes ``K = W_k h + up_k down_k h`` and ``V = W_v h + up_v down_v h`` at the token's positions; its features
h stay those of a vector that does not learn. Reference: TARA, arXiv 2508.08812: its token mask, in training and in
pictures. Its loss, which aligns the token's attention with masks of the thing, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.concepts.blocks import TOKENS_BLOCK
from orthoplex.concepts.tokens.learning import TokenLearning
from orthoplex.concepts.tokens.stored import TokenNumbers, stacked, unstacked
from orthoplex.concepts.tokens.token import Placement, Token
from orthoplex.errors import ConceptFileError
from orthoplex.subspaces import seeded

_BLOCKS = ("masked_down", "masked_up")
_RANK = 4


@final
@dataclass(frozen=True, eq=False)
class MaskedLora(Token):
    """A vector for all layers, and for each a low-rank change of the maps to its key and to its value.

    Attributes:
        vectors: Text encoder to ``(dim,)``.
        downs: Layer to the down factors of its key and of its value, ``(2, r, in)``.
        ups: Layer to the up factors, ``(2, out, r)``.
    """

    kind = "masked-lora"

    vectors: Mapping[str, Tensor]
    downs: Mapping[str, Tensor]
    ups: Mapping[str, Tensor]

    @property
    def placement(self) -> Placement:
        """The vectors in the place of the embeddings, and the layers' changes."""
        maps = {layer: (down, self.ups[layer]) for layer, down in self.downs.items()}
        return Placement(self.vectors, key_value_maps=maps)

    @classmethod
    def encode(cls, tokens: Mapping[str, MaskedLora]) -> TokenNumbers:
        """Write the blocks ``tokens``, ``masked_down`` and ``masked_up``, layer to ``(k, 2, …)``."""
        for token, item in tokens.items():
            if not item.downs:
                raise ConceptFileError(f"masked_down of token '{token}' names 0 layers, allowed is at least 1")
        parts = [stacked([getattr(item, name) for item in tokens.values()]) for name in ("vectors", "downs", "ups")]
        return TokenNumbers(tuple(tokens), dict(zip((TOKENS_BLOCK, *_BLOCKS), parts, strict=True)))

    @classmethod
    def decode(cls, numbers: TokenNumbers) -> dict[str, MaskedLora]:
        """Read what ``encode`` wrote.

        Raises:
            ConceptFileError: If the factors of a layer do not belong together.
        """
        downs, ups = (numbers.blocks[name] for name in _BLOCKS)
        if downs.keys() != ups.keys():
            raise ConceptFileError(f"masked_down has layers {sorted(downs)}; allowed are those of masked_up")
        for layer, down in downs.items():
            up = ups[layer]
            if down.ndim != 4 or up.ndim != 4 or down.shape[1] != 2 or up.shape[1] != 2 or down.shape[2] != up.shape[3]:
                raise ConceptFileError(
                    f"masked_down and masked_up of layer '{layer}' have shapes {tuple(down.shape)} and "
                    f"{tuple(up.shape)}; allowed are (k, 2, r, in) and (k, 2, out, r)"
                )
        columns = (unstacked(numbers.blocks[name], len(numbers.names)) for name in (TOKENS_BLOCK, *_BLOCKS))
        return {token: MaskedLora(*parts) for token, *parts in zip(numbers.names, *columns, strict=True)}


@final
class LearnedMaskedLora(TokenLearning):
    """Both factors learn, as a LoRA's do; the embedding does not.

    A row holds, layer by layer, the down and the up factors, ``(2, r, in)`` and ``(2, out, r)``.
    """

    def initial(self) -> Tensor:
        """Return random down factors, uniform as a LoRA's, and up factors of zero, ``(k, size)``."""
        first = next(iter(self.start.values()))
        generator, bound = seeded("masked-lora"), 1 / math.sqrt(self._width)
        parts = []
        for (_, down), (_, up) in self._shapes():
            count = len(first) * math.prod(down)
            parts += [
                bound * (2 * torch.rand(count, generator=generator) - 1).view(len(first), -1),
                torch.zeros(len(first), math.prod(up)),
            ]
        return torch.cat(parts, dim=1).to(first)

    def tokens(self, rows: Tensor) -> list[MaskedLora]:
        """Return a token for every row."""
        shapes = [shape for pair in self._shapes() for shape in pair]
        parts = rows.split([math.prod(shape) for _, shape in shapes], dim=1)
        named = [(layer, part.unflatten(1, shape)) for (layer, shape), part in zip(shapes, parts, strict=True)]
        downs, ups = dict(named[::2]), dict(named[1::2])
        return [
            MaskedLora(
                {encoder: vectors[i] for encoder, vectors in self.start.items()},
                {layer: factors[i] for layer, factors in downs.items()},
                {layer: factors[i] for layer, factors in ups.items()},
            )
            for i in range(len(rows))
        ]

    @property
    def _width(self) -> int:
        """The width of the features that the layers read."""
        return sum(vectors.shape[-1] for vectors in self.start.values())

    def _shapes(self) -> list[tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]]:
        """For every layer its name with the shape of its down factors, and with that of its up factors."""
        return [
            ((layer, (2, _RANK, self._width)), (layer, (2, width, _RANK)))
            for layer, width in self.ground.key_widths.items()
        ]
