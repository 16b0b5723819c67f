"""Buckets: sizes of one area in several shapes, so that pictures keep theirs."""

from __future__ import annotations

import math

from PIL import Image

from orthoplex.models import ItemSizes

COARSE_PIXELS = 64
"""Of which the sides of buckets are multiples, where pictures are large enough."""
_LARGE = 512
_LONGEST = 2
"""How many times as long as the square's a side may be: shapes are up to four times as wide as high."""


def bucket_step(resolution: int, side_multiple: int) -> int:
    """Return the number of pixels of which the sides of buckets are multiples.

    Args:
        resolution: Width and height of a square picture, in pixels.
        side_multiple: The number of which sides must be multiples.
    """
    return math.lcm(side_multiple, COARSE_PIXELS) if resolution >= _LARGE else side_multiple


def bucket_sizes(resolution: int, step: int) -> tuple[tuple[int, int], ...]:
    """Return width and height of every bucket; each as large as one side allows in the area of the square.

    Args:
        resolution: Width and height of the square, which is among them.
        step: The number of which all other sides are multiples.
    """
    area, sizes = resolution * resolution, {(resolution, resolution)}
    for side in range(step, _LONGEST * resolution + 1, step):
        other = area // side // step * step
        sizes |= {(side, other), (other, side)}
    return tuple(sorted(size for size in sizes if min(size) * _LONGEST >= resolution >= max(size) / _LONGEST))


def bucket_of(width: int, height: int, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the bucket that cuts off the smallest share of a picture, the larger one of equals.

    Args:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        sizes: Width and height of every bucket.
    """

    def order(size: tuple[int, int]) -> tuple[float, int, tuple[int, int]]:
        return round(abs(math.log(width * size[1] / (height * size[0]))), 9), -size[0] * size[1], size

    return min(sizes, key=order)


def sizes_of(image: Image.Image, size: tuple[int, int]) -> ItemSizes:
    """Return the sizes of a picture that is scaled until it covers a bucket, and cut at its middle.

    Args:
        image: The picture as it was read.
        size: Width and height of the bucket.
    """
    width, height = size
    scale = max(width / image.width, height / image.height)
    crop = (round((image.height * scale - height) / 2), round((image.width * scale - width) / 2))
    return ItemSizes((image.height, image.width), crop, (height, width))
