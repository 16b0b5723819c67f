"""The left and right parts of a picture of two things."""

from __future__ import annotations

from PIL import Image


def halves(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right of a picture: five eighths of its width each, without the top three sixteenths.

    So a thing that stands on one side is whole in its part, nearly fills it, and the part is nearly square.
    """
    width, height = picture.size
    top, wide = 3 * height // 16, -(-5 * width // 8)
    return picture.crop((0, top, wide, height)), picture.crop((width - wide, top, width, height))
