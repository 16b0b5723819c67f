"""Replacements of tokens by vectors, and by keys and values; which of several replacements counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from orthoplex.concepts import Token
from orthoplex.concepts.tokens.token import Placement


@final
@dataclass(frozen=True, eq=False)
class Replacement:
    """Vectors in the place of k tokens, and what layers add to their keys and values.

    Attributes:
        tokens: The names of the k tokens, which every text encoder's tokenizer knows.
        vectors: Text encoder to ``(n or 1, k, L or 1, dim)``: of every prompt of a batch or of all, of every one of the
            base's L cross-attention layers or of all; empty leaves the rows of the embedding.
        keys_values: Cross-attention layer to the additions to keys and values at each token, ``(k, 2, out)``.
        key_value_maps: Cross-attention layer to low-rank changes of the maps to keys and values at each token, k pairs
            ``(2, r, in)`` and ``(2, out, r)``.
    """

    tokens: tuple[str, ...]
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    keys_values: Mapping[str, Tensor] = field(default_factory=dict)
    key_value_maps: Mapping[str, tuple[tuple[Tensor, Tensor], ...]] = field(default_factory=dict)

    @staticmethod
    def of(tokens: Mapping[str, Token], layers: Sequence[str]) -> Replacement:
        """Return the replacement by k tokens of one kind.

        Args:
            tokens: Name to token.
            layers: The base's cross-attention layers.
        """
        placements = [item.placement for item in tokens.values()]
        vectors = {
            encoder: torch.stack([_by_layer(placement, encoder, layers) for placement in placements]).unsqueeze(0)
            for encoder in placements[0].vectors
        }
        keys_values = {
            layer: torch.stack([placement.keys_values[layer] for placement in placements])
            for layer in placements[0].keys_values
        }
        maps = {
            layer: tuple(placement.key_value_maps[layer] for placement in placements)
            for layer in placements[0].key_value_maps
        }
        return Replacement(tuple(tokens), vectors, keys_values, maps)

    def beyond_rows(self, device: torch.device) -> Replacement:
        """Return the part that rows of the embedding cannot hold, apart from any graph, on a device."""
        return Replacement(
            self.tokens,
            {encoder: vectors.detach() for encoder, vectors in self.vectors.items()} if self.is_layerwise else {},
            {layer: values.detach().to(device) for layer, values in self.keys_values.items()},
            {
                layer: tuple((down.detach().to(device), up.detach().to(device)) for down, up in pairs)
                for layer, pairs in self.key_value_maps.items()
            },
        )

    @property
    def is_layerwise(self) -> bool:
        """True if layers have vectors of their own."""
        return any(vectors.shape[2] > 1 for vectors in self.vectors.values())

    @property
    def is_wide(self) -> bool:
        """True if it needs more of the text features than their plain width."""
        return self.is_layerwise or self.has_marks

    @property
    def has_marks(self) -> bool:
        """True if layers have to know where its tokens stand."""
        return bool(self.keys_values or self.key_value_maps)


@final
class Replacements:
    """The replacements that are in, in the order in which they came; later ones win.

    A later replacement that adds nothing to keys and values also removes what earlier ones add for its tokens.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._every: list[Replacement] = []

    def add(self, replacement: Replacement) -> None:
        """Put a replacement in, over all others."""
        self._every.append(replacement)

    def remove(self, replacement: Replacement) -> None:
        """Take a replacement out."""
        self._every = [other for other in self._every if other is not replacement]

    @property
    def is_empty(self) -> bool:
        """True if there are none."""
        return not self._every

    @property
    def is_wide(self) -> bool:
        """True if any needs more of the text features than their plain width."""
        return any(replacement.is_wide for replacement in self._every)

    @property
    def is_layerwise(self) -> bool:
        """True if layers have vectors of their own."""
        return any(replacement.is_layerwise for replacement in self._every)

    @property
    def layerwise(self) -> tuple[str, ...]:
        """The tokens that have a vector for each layer now."""
        last = self._last([replacement for replacement in self._every if replacement.vectors])
        return tuple(token for token, (replacement, _) in last.items() if replacement.is_layerwise)

    @property
    def marked(self) -> dict[str, tuple[Replacement, int] | None]:
        """Tokens whose keys and values some replacement changes, to the one that counts and the token's place in it.

        None stands for a token whose last replacement has none.
        """
        tokens = self._last([replacement for replacement in self._every if replacement.has_marks])
        last = self._last(self._every)
        return {token: last[token] if last[token][0].has_marks else None for token in tokens}

    @staticmethod
    def _last(replacements: Sequence[Replacement]) -> dict[str, tuple[Replacement, int]]:
        """Tokens, in the order in which they were first put in, to their last replacement and their place in it."""
        return {
            token: (replacement, place)
            for replacement in replacements
            for place, token in enumerate(replacement.tokens)
        }


def _by_layer(placement: Placement, encoder: str, layers: Sequence[str]) -> Tensor:
    """A token's vectors ``(L or 1, dim)`` in the order of the base's layers."""
    vectors = placement.vectors[encoder]
    if not placement.layers:
        return vectors.unsqueeze(0)
    order = [placement.layers.index(layer) for layer in layers]
    return vectors if order == list(range(len(order))) else vectors[order]
