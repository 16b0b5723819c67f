"""Reading of pictures, for training and for measurements alike."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

import numpy as np
from PIL import Image, UnidentifiedImageError

from orthoplex.errors import DatasetError
from orthoplex.files.error_text import one_line
from orthoplex.files.picture_bytes import orientation_of, picture_bytes
from orthoplex.files.recognition import recognised_content
from orthoplex.files.warning_filters import without_warnings

_SUFFIXES = (*(".png", ".jpg", ".jpeg", ".webp", ".jpe", ".jfif", ".bmp", ".dib"), *(".tif", ".tiff", ".gif", ".apng"))
PICTURE_SUFFIXES = (*_SUFFIXES, ".avif") if ".avif" in Image.registered_extensions() else _SUFFIXES
"""Suffixes of pictures; upper case counts too. Old versions of Pillow cannot open AVIF."""

_FORMATS = tuple(sorted({Image.registered_extensions()[suffix] for suffix in PICTURE_SUFFIXES}))
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_Result = TypeVar("_Result")


@final
@dataclass(frozen=True)
class PictureSize:
    """The size of a picture, from its first bytes.

    Attributes:
        width: Upright, in pixels.
        height: Upright, in pixels.
        has_more: True if frames or pages follow the first one, which is the one that is read.
    """

    width: int
    height: int
    has_more: bool


def read_picture(path: Path, digest: str | None = None) -> Image.Image:
    """Return a picture as RGB: upright, transparent parts white, 16-bit grey scaled; of several frames the first.

    Of all that its file carries beside the picture, the orientation alone is read.

    Args:
        path: The file.
        digest: SHA-256 (hex) that its bytes must have; None for any.

    Raises:
        DatasetError: When it cannot be read, or has another digest.
    """
    return _opened(path, lambda image, orientation, _: _in_rgb(image, orientation, path), digest)


def read_alpha(path: Path, digest: str | None = None) -> Image.Image | None:
    """Return how opaque a picture is, as grey: black where it is transparent; None if it is opaque everywhere.

    Args:
        path: The file.
        digest: SHA-256 (hex) that its bytes must have; None for any.

    Raises:
        DatasetError: When it cannot be read, or has another digest.
    """

    def opacity(image: Image.Image, orientation: int, _: bool) -> Image.Image | None:
        if not _is_transparent(image):
            return None
        alpha = _upright(image, orientation, path).convert("RGBA").getchannel("A")
        return None if alpha.getextrema() == (255, 255) else alpha

    return _opened(path, opacity, digest)


def read_mask(path: Path, digest: str | None = None) -> Image.Image:
    """Return a picture as grey: upright, transparent parts black.

    Args:
        path: The file.
        digest: SHA-256 (hex) that its bytes must have; None for any.

    Raises:
        DatasetError: When it cannot be read, or has another digest.
    """
    return _opened(path, lambda image, orientation, _: _in_rgb(image, orientation, path, "black"), digest).convert("L")


def picture_size(path: Path) -> PictureSize:
    """Return the size of a picture, upright, without decoding it.

    Raises:
        DatasetError: When its beginning cannot be read.
    """

    def measured(image: Image.Image, orientation: int, has_more: bool) -> PictureSize:
        width, height = image.size if orientation < 5 else image.size[::-1]
        return PictureSize(width, height, has_more or getattr(image, "is_animated", False))

    return _opened(path, measured)


def _opened(path: Path, use: Callable[[Image.Image, int, bool], _Result], digest: str | None = None) -> _Result:
    """Return ``use(image, orientation, has_more)``; whatever it or Pillow raises names the file."""
    content = b""
    try:
        content = path.read_bytes()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise DatasetError(f"picture {path} was replaced after the folder was looked through; begin again")
        plain = picture_bytes(content)
        with without_warnings(), Image.open(io.BytesIO(plain.data), formats=_FORMATS) as image:
            exif, xmp = image.info.get("exif"), image.info.get("xmp")
            orientation = max(plain.orientation, orientation_of(exif, xmp))
            return use(image, orientation, plain.has_more)
    except (DatasetError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DatasetError(
            f"picture {path} cannot be read: it has more than {limit} pixels; make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise DatasetError(f"picture {path} cannot be read: {_guess(content)}") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        by_system = error.strerror if isinstance(error, OSError) else None
        reason = by_system or one_line(str(error)) or type(error).__name__
        raise DatasetError(f"picture {path} cannot be read: {reason}") from error


def _guess(content: bytes) -> str:
    """Say the kind of a file that no decoder knows, and the cure."""
    kind = recognised_content(content)
    if kind is None or (kind.sort == "picture" and not kind.cure):
        return f"it is damaged, or no picture of the formats {', '.join(_FORMATS)}"
    return f"it is {kind.sentence}"


def _in_rgb(image: Image.Image, orientation: int, path: Path, ground: str = "white") -> Image.Image:
    image = _upright(image, orientation, path)
    if _is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
    return image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _upright(image: Image.Image, orientation: int, path: Path) -> Image.Image:
    is_png = image.format == "PNG"
    image.load()
    if (method := _TRANSPOSITIONS.get(orientation)) is not None:
        image = image.transpose(method)
    return _in_8_bits(image, path, is_png=is_png)


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
