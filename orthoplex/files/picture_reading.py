"""Reading of pictures, for training and for measurements alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from orthoplex.errors import DatasetError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Suffixes of a concept's pictures; upper case counts too."""


def picture_files(folder: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> list[Path]:
    """Return the pictures of a folder, not of folders in it, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in suffixes)


def read_picture(path: Path) -> Image.Image:
    """Return a picture as RGB: turned as its EXIF data say, transparent parts white, 16-bit grey scaled.

    Raises:
        DatasetError: When it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            image = _in_8_bits(ImageOps.exif_transpose(opened), path, is_png=opened.format == "PNG")
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"picture {path} cannot be read: {error}") from error


def _in_8_bits(image: Image.Image, path: Path, *, is_png: bool) -> Image.Image:
    """Scale 16-bit grey, which conversion to RGB would clip at 255; other pictures come back as they are.

    A PNG in mode ``I`` has 16 bits too: older versions of Pillow have no other mode for it.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    if image.mode == "F" or (image.mode == "I" and not is_png):
        raise DatasetError(f"picture {path} has pixels of mode {image.mode}; allowed are 8 or 16 bits per channel")
    values = np.asarray(image)
    grey = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
