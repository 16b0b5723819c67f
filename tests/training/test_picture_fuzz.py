"""Damaged pictures: each is read, or refused in one line that names it; nothing else comes out."""

import struct
import time
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from orthoplex.errors import DatasetError
from orthoplex.files import PICTURE_SUFFIXES, picture_size, read_picture

pytestmark = pytest.mark.slow

DAMAGES = 250
SECONDS = 20.0
EXTREMES = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff")
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def whole(path, random):
    """A picture with metadata of every sort that its format has."""
    image = Image.fromarray(random.integers(0, 255, (24, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = int(random.integers(1, 9)), "a picture"
    exif[0x011A] = float(random.integers(1, 300))
    options = {"exif": exif, "xmp": XMP, "icc_profile": random.bytes(200), "dpi": (72, 72), "comment": b"a comment"}
    if path.suffix in (".png", ".apng"):
        text = PngImagePlugin.PngInfo()
        text.add_text("parameters", "steps: 20", zip=True)
        text.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
        options = {"exif": exif, "pnginfo": text, "icc_profile": random.bytes(200)}
    elif path.suffix in (".tif", ".tiff"):
        options = {"exif": exif, "compression": str(random.choice(["raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate"]))}
    elif path.suffix in (".bmp", ".dib", ".gif"):
        options = {"comment": b"a comment"} if path.suffix == ".gif" else {}
    if path.suffix in (".jpg", ".jfif"):
        options["progressive"] = bool(random.integers(2))
    if path.suffix in (".gif", ".apng", ".webp"):
        options |= {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    image.save(path, format="JPEG" if path.suffix in (".jfif", ".jpe") else None, **options)
    return path.read_bytes()


def pieces(data):
    """The start of a file, and then the chunks of PNG or RIFF, the segments of JPEG, or slices of any other format."""
    if data.startswith(b"\x89PNG"):
        return split(data, 8, lambda place: 12 + struct.unpack_from(">I", data, place)[0])
    if data.startswith(b"RIFF"):
        return split(data, 12, lambda place: 8 + (struct.unpack_from("<I", data, place + 4)[0] + 1) // 2 * 2)
    if data.startswith(b"\xff\xd8"):
        end = data.index(b"\xff\xda")
        return [*split(data[:end], 2, lambda place: 2 + struct.unpack_from(">H", data, place + 2)[0]), data[end:]]
    return split(data, 8, lambda place: 16)


def split(data, place, length):
    parts = [data[:place]]
    while place < len(data):
        parts.append(data[place : place + length(place)])
        place += len(parts[-1])
    return parts


def with_checksums(data):
    """A PNG whose checksums fit its chunks again, so that damage gets past them."""
    try:
        start, *chunks = pieces(data)
        return start + b"".join(chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])) for chunk in chunks)
    except struct.error:
        return data


def damaged(data, kind, random):
    place = int(random.integers(len(data)))
    match kind:
        case "flip in the header" | "flip":
            for _ in range(int(random.integers(1, 9))):
                place = int(random.integers(min(len(data), 120) if kind == "flip in the header" else len(data)))
                data = data[:place] + bytes([data[place] ^ (1 << int(random.integers(8)))]) + data[place + 1 :]
        case "truncation":
            return data[:place]
        case "extreme":
            width, place = int(random.choice([1, 2, 4])), int(random.integers(min(len(data), 300)))
            data = data[:place] + EXTREMES[int(random.integers(5))] * width + data[place + width :]
        case "random bytes":
            data = data[:place] + random.bytes(30) + data[place + 30 :]
        case "bytes behind":
            data += random.bytes(500)
        case _:
            parts = pieces(data)
            one, other = (int(number) for number in random.integers(1, len(parts), 2))
            if kind == "double":
                parts.insert(other, parts[one])
            elif kind == "removal":
                del parts[one]
            else:
                parts[one], parts[other] = parts[other], parts[one]
            data = b"".join(parts)
    return with_checksums(data) if data.startswith(b"\x89PNG") and random.integers(2) else data


KINDS = (
    "flip in the header",
    "flip",
    "truncation",
    "extreme",
    "random bytes",
    "bytes behind",
    "double",
    "removal",
    "swap",
)


def outcome(path, read):
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        start = time.monotonic()
        try:
            read(path)
            result = "read"
        except DatasetError as error:
            assert path.name in str(error) and "\n" not in str(error)
            result = "refused"
    assert not escaped and time.monotonic() - start < SECONDS
    return result


def campaign(suffix, folder):
    """How many damaged pictures of a format are read and refused."""
    outcomes = Counter()
    for seed in range(DAMAGES):
        random = np.random.default_rng([seed, PICTURE_SUFFIXES.index(suffix)])
        path = folder / f"damaged-{seed}{suffix}"
        path.write_bytes(damaged(whole(path, random), KINDS[seed % len(KINDS)], random))
        outcomes[outcome(path, read_picture)] += 1
        outcome(path, picture_size)
        path.unlink()
    return outcomes


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_damage_is_named_or_harmless(suffix, tmp_path):
    outcomes = campaign(suffix, tmp_path)
    assert outcomes["read"] + outcomes["refused"] == DAMAGES and outcomes["read"] > 0 and outcomes["refused"] > 0
