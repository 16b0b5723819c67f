"""The bytes of a picture without the metadata of its file, and its orientation.

Damaged EXIF data, a resolution that is a text, a workflow of megabytes in a text chunk: nothing of it is the picture,
and an image library that reads it may stumble over it. Of all of it only the orientation is read here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

EXIF_START = b"Exif\0\0"
_XMP_KEY = b"XML:com.adobe.xmp"
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")
_TEXT_LIMIT_BYTES = 1 << 20
"""Of a compressed text, the beginning that may hold an orientation."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

_JPEG_START = b"\xff\xd8\xff"
_JPEG_SCAN = 0xDA
_JPEG_SEGMENTS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCA, 0xCB, 0xCC, 0xDB, 0xDD}
"""Frames that the decoder knows, tables, and the interval of restarts."""
_JPEG_COLOR = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""Segments that say what the channels are -> how they begin, and their least length in bytes."""

_ORIENTATION_TAG, _XMP_TAG = 274, 700
_TIFF_TAGS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 317, 320, 322, 323, 324, 325, 338, 339, 347),
    *(*range(512, 522), 529, 530, 532),
}
"""Tags that an image library needs to find and decode the pixels."""


@final
@dataclass(frozen=True)
class PictureBytes:
    """A picture without the metadata of its file.

    Attributes:
        data: The picture's bytes.
        orientation: From 1 to 8, as EXIF counts; 1 is upright.
        has_more: True if other frames or pages follow the first one; formats without such data say False.
    """

    data: bytes
    orientation: int = 1
    has_more: bool = False


def picture_bytes(data: bytes) -> PictureBytes:
    """Return the picture of a file's bytes; formats in which metadata cannot hinder reading come back as they are."""
    if data.startswith(_PNG_START):
        return _png(data)
    if data.startswith(_JPEG_START):
        return _jpeg(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data[4:8] == b"ftyp":
        return PictureBytes(_without_exif_item(data))
    return PictureBytes(data)


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """Return the orientation that metadata name, from 1 to 8; 1 where there are none or they cannot be read.

    Args:
        exif: EXIF data, with or without their usual first six bytes.
        xmp: XMP text, which is asked when EXIF data say nothing.
    """
    if exif:
        exif = exif.removeprefix(EXIF_START)
        for tag, value in _entries(exif):
            if tag == _ORIENTATION_TAG:
                number = int.from_bytes(value, "little" if exif.startswith(b"II") else "big")
                return number if 1 <= number <= 8 else 1
    match = _XMP_ORIENTATION.search(xmp or b"")
    return max(1, min(8, int(match[1]))) if match else 1


@final
@dataclass(frozen=True)
class _Directory:
    """The layout of a directory of TIFF: ``H`` count and entries of 12 bytes, or of 20 in BigTIFF."""

    order: str
    start: int
    count: str
    entry: str
    offset: str


def _directory(data: bytes) -> _Directory | None:
    """Return where the first directory is, or None."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    if struct.unpack_from(f"{order}H", data, 2)[0] == 43:
        return _Directory(order, struct.unpack_from(f"{order}Q", data, 8)[0], "Q", "HHQ8s", "Q")
    return _Directory(order, struct.unpack_from(f"{order}I", data, 4)[0], "H", "HHI4s", "I")


def _raw_entries(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, count and value or offset of the entries of the first directory, as far as there are bytes."""
    layout = _directory(data)
    if layout is None or layout.start + struct.calcsize(layout.count) > len(data):
        return
    (count,) = struct.unpack_from(layout.order + layout.count, data, layout.start)
    position, form = layout.start + struct.calcsize(layout.count), layout.order + layout.entry
    for _ in range(count):
        if position + struct.calcsize(form) > len(data):
            return
        yield struct.unpack_from(form, data, position)
        position += struct.calcsize(form)


def _entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and value of small whole numbers, and of XMP text, in the first directory."""
    order = "<" if data.startswith(b"II") else ">"
    for tag, kind, count, value in _raw_entries(data):
        if tag == _XMP_TAG and kind in (1, 7) and count > len(value):
            start = int.from_bytes(value, "little" if order == "<" else "big")
            yield tag, data[start : start + min(count, _TEXT_LIMIT_BYTES)]
        elif count == 1 and kind in (1, 3, 4):
            yield tag, value[: {1: 1, 3: 2, 4: 4}[kind]]


def _tiff(data: bytes) -> PictureBytes:
    """Leave only the tags of the picture in the first directory, and no second one; the length stays."""
    layout, entries = _directory(data), list(_raw_entries(data))
    if layout is None or not entries:
        return PictureBytes(data)
    form, size = layout.order + layout.entry, struct.calcsize(layout.order + layout.entry)
    start = layout.start + struct.calcsize(layout.count)
    end = start + size * len(entries)
    width = struct.calcsize(layout.offset)
    own = [entry for entry in entries if entry[0] in _TIFF_TAGS]
    written = struct.pack(layout.order + layout.count, len(own)) + b"".join(struct.pack(form, *entry) for entry in own)
    cleaned = data[: layout.start] + (written + bytes(width)).ljust(end + width - layout.start, b"\0")
    values = dict(_entries(data))
    orientation = values.get(_ORIENTATION_TAG)
    number = int.from_bytes(orientation, "little" if layout.order == "<" else "big") if orientation else 0
    return PictureBytes(
        cleaned + data[end + width :],
        number if 1 <= number <= 8 else orientation_of(None, values.get(_XMP_TAG)),
        has_more=any(data[end : end + width]),
    )


def _png(data: bytes) -> PictureBytes:
    parts, position, exif, xmp, has_more = [_PNG_START], len(_PNG_START), None, None, False
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, position = position, position + 12 + length
        if kind in _PNG_CHUNKS:
            chunk = data[start:position]
            parts.append(_clear_grey(data, chunk) if kind == b"tRNS" else chunk)
        elif kind == b"IEND":
            break
        elif kind == b"acTL":
            has_more = int.from_bytes(data[start + 8 : start + 12], "big") > 1
        elif kind == b"eXIf":
            exif = exif or data[start + 8 : position - 4]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, value = data[start + 8 : position - 4].partition(b"\0")
            if key == b"Raw profile type exif":
                exif = exif or _profile(_unpacked(value[1:]) if kind == b"zTXt" else value)
            elif key == _XMP_KEY:
                xmp = _unpacked(value.split(b"\0", 3)[-1]) if value[:1] == b"\1" else value
    if position <= len(data):
        parts.append(_PNG_END)
    return PictureBytes(b"".join(parts), orientation_of(exif, xmp), has_more)


def _clear_grey(data: bytes, chunk: bytes) -> bytes:
    """Return the chunk of the clear grey, scaled to 8 bits as Pillow scales pixels of 2 and 4 bits; others as given."""
    depth, color = data[24:26].ljust(2, b"\0")  # of the header, the first chunk
    if color != 0 or depth not in (2, 4) or len(chunk) != 14:
        return chunk
    most = (1 << depth) - 1
    value = b"tRNS" + struct.pack(">H", (chunk[9] & most) * 255 // most)
    return struct.pack(">I", 2) + value + struct.pack(">I", zlib.crc32(value))


def _unpacked(value: bytes) -> bytes:
    """Unpack the beginning of a compressed text; empty where it is damaged."""
    try:
        return zlib.decompressobj().decompress(value, _TEXT_LIMIT_BYTES)
    except zlib.error:
        return b""


def _profile(text: bytes) -> bytes:
    """Read EXIF data that are written as digits: a name, a length, then hexadecimal digits."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _jpeg(data: bytes) -> PictureBytes:
    """Leave the segments of the picture and those that say what its channels are; the scans stay as they are."""
    parts, position, exif, xmp = [data[:2]], 2, None, None
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _JPEG_SCAN:
            parts.append(data[position:])
            break
        end = position + 2 + length
        if marker < 0xC0 or marker == 0xFF or 0xD0 <= marker <= 0xD9 or length < 2 or end > len(data):
            position += 1  # no segment: padding, junk or a broken one
            continue
        value = data[position + 4 : end]
        start, least = _JPEG_COLOR.get(marker, (b"", 0))
        if marker in _JPEG_SEGMENTS or (least and value.startswith(start) and len(value) >= least):
            parts.append(data[position:end])
        elif marker == 0xE1 and value.startswith(EXIF_START):
            exif = exif or value
        elif marker == 0xE1 and value.startswith(_XMP_START):
            xmp = value
        position = end
    return PictureBytes(b"".join(parts), orientation_of(exif, xmp))


def _without_exif_item(data: bytes) -> bytes:
    """Give the EXIF item of an AVIF file a type that is skipped; properties of the picture say how it is turned."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"meta":
            end = position + length
            return data[:position] + data[position:end].replace(b"Exif", b"skip") + data[end:]
        if length < 8:
            break
        position += length
    return data
