"""The base class of encoders, which turn pictures into vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from orthoplex.concepts import KINDS
from orthoplex.errors import ConfigurationError

LARGEST_PICTURE = 4096
"""Side in pixels beyond which a picture would take gigabytes to encode."""


class Encoder(ABC):
    """Frozen features of pictures: `f(x) = v/|v|`, one unit row a picture.

    A row of zeros is a picture without features (no face in it): its cosine with everything is 0, and
    the formulas never take it for a concept.

    Args:
        batch_size: Pictures a forward pass.

    Attributes:
        kinds: Kinds of concepts whose pictures these features can compare.
        identity_cosine: The cosine above which two pictures show the same, where one is published for these features;
            None where a threshold has to be set on impostors.

    Raises:
        ConfigurationError: for a batch size below 1.
    """

    kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)
    identity_cosine: float | None = None

    def __init__(self, *, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"encoder batch_size is {batch_size}; allowed: 1 or more")
        self.batch_size = batch_size

    @property
    @abstractmethod
    def name(self) -> str:
        """The identity of these features, for caches and reports; it can be part of a file's name."""

    @abstractmethod
    def vectors(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return the network's features of one batch, `(n, d)`, before they get unit length; n is 1 or more."""

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit feature vectors of pictures.

        Args:
            pictures: Any sizes and modes.

        Returns:
            `(n, d)` float32 with rows of length 1, or 0 for a picture without features; `(0, d)` for no pictures.
        """
        if not pictures:
            return self.vectors([Image.new("RGB", (32, 32))])[:0].float()
        batches = [pictures[start : start + self.batch_size] for start in range(0, len(pictures), self.batch_size)]
        return torch.cat([functional.normalize(self.vectors(batch).float(), dim=1) for batch in batches])
