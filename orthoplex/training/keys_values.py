"""Keys and values of a concept's tokens as numbers that learn: one row a token, in units of each layer's own size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from orthoplex.models import Base
from orthoplex.training.text import word_spread


@final
@dataclass(frozen=True)
class KeyValueLayout:
    """Where the keys and values of all cross-attention layers lie in a row, and in which units they learn.

    A row holds each layer's key, unless keys are locked, then its value, layer by layer. What is added to them is the
    row's part times the layer's unit: the typical size of its keys, or values, per typical size of an embedding. An
    optimizer such as AdamW, which moves every number equally far, so moves keys and values by the same share of their
    size as it would embeddings, and one learning rate suits all layers, and both.

    Attributes:
        widths: Layer to the number of numbers of its key, and of its value as many.
        units: Layer to the unit of its keys and that of its values.
        keys: Whether keys learn; locked ones stay what the layer computes for the token's own vector.
    """

    widths: Mapping[str, int]
    units: Mapping[str, tuple[float, float]]
    keys: bool = True

    @staticmethod
    @torch.no_grad()
    def of(base: Base, class_word: str, *, keys: bool = True) -> "KeyValueLayout":
        """Measure a base: root mean squares of what its layers compute for the class word, per spread of embeddings."""
        spread = word_spread(base).deviation.square().mean().sqrt().item()
        features = base.family.condition([class_word]).features.float()
        linears, layers = base.family.feature_layers(), base.cross_attention_layers

        def size(name: str) -> float:
            return functional.linear(features, linears[name].weight.float()).square().mean().sqrt().item()

        units = {layer: (size(f"{layer}.to_k") / spread, size(f"{layer}.to_v") / spread) for layer in layers}
        return KeyValueLayout(base.key_widths, units, keys)

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        return self._parts * sum(self.widths.values())

    @property
    def _parts(self) -> int:
        return 2 if self.keys else 1

    def of_layer(self, rows: Tensor, layer: str) -> Tensor:
        """Return what a layer adds to keys and values of k tokens, ``(k, 2, out)``, from rows ``(k, size)``."""
        start = 0
        for name, width in self.widths.items():
            if name == layer:
                *keys, values = rows[:, start : start + self._parts * width].split(width, dim=1)
                key = keys[0] * self.units[layer][0] if keys else torch.zeros_like(values)
                return torch.stack([key, values * self.units[layer][1]], dim=1)
            start += self._parts * width
        raise KeyError(layer)
