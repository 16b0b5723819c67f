"""The small picture in a manifest."""

from __future__ import annotations

import base64
import io

from PIL import Image

from orthoplex.concepts.manifest import THUMBNAIL_LIMIT_BYTES

_SIDES = (96, 64, 48, 32, 16)
_QUALITIES = (85, 70, 50)


def encode_thumbnail(image: Image.Image) -> str:
    """Reduce a picture to a JPEG in base64 of at most 6 KiB: the largest side and quality that fit."""
    for side in _SIDES:
        small = image.convert("RGB")
        small.info.clear()  # a JPEG's comment would be written again
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, format="JPEG", quality=quality, optimize=True)
            text = base64.b64encode(buffer.getvalue()).decode("ascii")
            if len(text) <= THUMBNAIL_LIMIT_BYTES:
                return text
    raise AssertionError("a 16-pixel JPEG is always below 6 KiB")


def decode_thumbnail(text: str) -> Image.Image | None:
    """The picture back, or None for the empty string."""
    if not text:
        return None
    return Image.open(io.BytesIO(base64.b64decode(text)))
