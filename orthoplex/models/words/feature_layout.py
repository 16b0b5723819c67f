"""How text features carry more than one vector a position through a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError


@final
@dataclass(frozen=True)
class FeatureBlock:
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
        return _is_plain(features, self.dim, self.width)

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


@final
@dataclass(frozen=True)
class FeatureLayout:
    """The blocks of all text encoders, side by side as a pipeline concatenates their features.

    Attributes:
        blocks: One for each text encoder, in the order in which their features lie.
    """

    blocks: tuple[FeatureBlock, ...]

    @property
    def dim(self) -> int:
        """The plain width, that of all text encoders."""
        return sum(block.dim for block in self.blocks)

    @property
    def width(self) -> int:
        """How many numbers lie side by side."""
        return sum(block.width for block in self.blocks)

    def is_plain(self, features: Tensor) -> bool:
        """True for features of plain width, which carry nothing more.

        Raises:
            BaseModelError: If the features have neither the plain nor the whole width.
        """
        return _is_plain(features, self.dim, self.width)

    def own(self, features: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the features that the layer numbered ``index`` reads, ``(n, length, Σ dim)``, and the marks.

        A token has a mark in every block. Text encoders read the same positions, so that the first block's marks count.
        """
        parts = features.split([block.width for block in self.blocks], dim=-1)
        read = [block.own(part, index) for block, part in zip(self.blocks, parts, strict=True)]
        return torch.cat([own for own, _ in read], dim=-1), read[0][1]


def _is_plain(features: Tensor, plain: int, whole: int) -> bool:
    width = features.shape[-1]
    if width not in (plain, whole):
        raise BaseModelError(
            f"text features have the width {width}; allowed are {plain}, the text encoders' own, and {whole}, as they "
            "give them while these tokens are in"
        )
    return width == plain
