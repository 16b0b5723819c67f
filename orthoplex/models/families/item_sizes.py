"""The sizes of a training picture, which some denoisers are told of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class ItemSizes:
    """What was done to a picture before it became latents, in pixels.

    Attributes:
        original: Height and width of the picture's file.
        crop: Rows and columns that were cut off at the top and at the left.
        target: Height and width of what is trained on.
    """

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]

    @staticmethod
    def whole(height: int, width: int) -> ItemSizes:
        """Return the sizes of a picture that was made as it is."""
        return ItemSizes((height, width), (0, 0), (height, width))

    @property
    def numbers(self) -> tuple[int, ...]:
        """All six, in the order in which Stable Diffusion XL reads them."""
        return *self.original, *self.crop, *self.target
