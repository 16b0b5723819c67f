"""How text features carry more than one vector a position through a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError


@final
@dataclass(frozen=True)
class FeatureLayout:
    """What lies side by side in the features of one text encoder while tokens need more than their plain width.

    ``(n, length, num_layers · dim + num_marks)``: the features that each layer reads, one group for all or one a layer,
    then a mark for each token with keys and values, 1 at its positions and 0 elsewhere.

    Attributes:
        num_layers: 1, or L where layers read features of their own.
        dim: The plain width.
        num_marks: How many tokens have marks.
    """

    num_layers: int
    dim: int
    num_marks: int

    @property
    def width(self) -> int:
        """How many numbers lie side by side."""
        return self.num_layers * self.dim + self.num_marks

    def is_plain(self, features: Tensor) -> bool:
        """True for features of plain width, which carry nothing more.

        Raises:
            BaseModelError: If the features have neither the plain nor the whole width.
        """
        width = features.shape[-1]
        if width not in (self.dim, self.width):
            raise BaseModelError(
                f"text features have the width {width}; allowed are {self.dim}, the encoder's own, and {self.width}, "
                "as it gives them while these tokens are in"
            )
        return width == self.dim

    def apart(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the groups ``(n, length, num_layers, dim)``, and the marks ``(n, length, num_marks)``."""
        groups, marks = features.split([self.num_layers * self.dim, self.num_marks], dim=-1)
        return groups.unflatten(-1, (self.num_layers, self.dim)), marks

    def together(self, groups: Tensor, marks: Tensor) -> Tensor:
        """Return wide features of groups ``(n, length, num_layers, dim)`` and marks."""
        features = groups.flatten(-2)
        return torch.cat([features, marks.to(features)], dim=-1) if self.num_marks else features

    def own(self, features: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the features that the layer numbered ``index`` reads, ``(n, length, dim)``, and the marks."""
        groups, marks = self.apart(features)
        return groups[..., index if self.num_layers > 1 else 0, :], marks
