"""The picture without its metadata is the picture that Pillow alone reads; each entry of the tables is needed."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from orthoplex.files import picture_bytes as module
from orthoplex.files.picture_bytes import picture_bytes

SIDE = 16
PIXELS = np.random.default_rng(3).integers(0, 255, (SIDE, SIDE, 4), dtype=np.uint8)
PIXELS[:, :, 1] = np.arange(SIDE) * 15
RGBA = Image.fromarray(PIXELS)
GREY_16 = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)


def in_mode(mode):
    """The picture in a mode; palettes hold few colours, so that every number of them is used."""
    match mode:
        case "P":
            return RGBA.convert("RGB").quantize(16)
        case "PA":
            return RGBA.convert("RGB").quantize(16).convert("PA")
        case "I;16":
            return GREY_16
        case "LA" | "RGBA":
            return RGBA.convert(mode)
        case _:
            return RGBA.convert("RGB").convert(mode)


def saved(mode, format, **options):
    stream = io.BytesIO()
    in_mode(mode).save(stream, format=format, **options)
    return stream.getvalue()


def tiff(samples, *, bits=8, photometric=2, order="<", **others):
    """A TIFF by hand; others are tags, by ``t`` and their number: a number, or a list of numbers or fractions."""
    data = samples.tobytes() if isinstance(samples, np.ndarray) else samples
    channels = samples.shape[2] if isinstance(samples, np.ndarray) and samples.ndim == 3 else 1
    tags = {256: SIDE, 257: SIDE, 258: [bits] * channels, 259: 1, 262: photometric, 273: 0, 277: channels, 278: SIDE}
    tags |= {279: len(data)} | {int(name[1:]): value for name, value in others.items()}
    tags = {tag: value for tag, value in tags.items() if value is not None}
    start = 10 + 12 * len(tags)
    entries, extra = b"", b""
    lists = [value for value in tags.values() if isinstance(value, list) and len(value) > 2]
    place = start + 4 + sum(8 * len(value) if isinstance(value[0], float) else 2 * len(value) for value in lists)
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        if tag in (273, 324):
            size = len(data) // len(values)
            values = [place + size * number for number in range(len(values))]
        kind, packed = 3, struct.pack(f"{order}{len(values)}H", *map(int, values))
        if isinstance(values[0], float):
            kind, packed = 5, b"".join(struct.pack(f"{order}2I", int(1000 * each), 1000) for each in values)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(f"{order}I", start + 4 + len(extra))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + extra + data


def tiles():
    return {"t322": SIDE, "t323": SIDE, "t324": 0, "t325": SIDE * SIDE * 3, "t273": None, "t278": None, "t279": None}


def strips(count, samples=PIXELS[:, :, :3]):
    """Packed strips, each as long as the longest."""
    parts = [zlib.compress(part.tobytes()) for part in np.split(samples, count)]
    return b"".join(part.ljust(max(map(len, parts)), b"\0") for part in parts)


def with_marker(data, old, new):
    place = data.index(old)
    return data[:place] + new + data[place + len(old) :]


JPEG = saved("RGB", "JPEG", subsampling=0)
CMYK = saved("CMYK", "JPEG")
COMPONENTS = JPEG.index(b"\xff\xc0") + 10
RGB_8, GREY = PIXELS[:, :, :3].copy(), PIXELS[:, :, 0].copy()
BITS = np.packbits(GREY > 120, axis=1)
PALETTE = [int(value) * 257 for value in np.random.default_rng(1).integers(0, 255, 768)]

CASES = {
    **{f"PNG {mode}": saved(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "PNG with a transparent colour": saved("RGB", "PNG", transparency=tuple(RGB_8[2, 3].tolist())),
    "PNG with a transparent grey": saved("L", "PNG", transparency=7),
    "PNG with a transparent number of a palette": saved("P", "PNG", transparency=3),
    "PNG with a palette of alphas": saved("P", "PNG", transparency=bytes(range(16))),
    "PNG of four colours": saved("P", "PNG", bits=2),
    "PNG of frames": saved("RGB", "PNG", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE), "red")]),
    "JPEG L": saved("L", "JPEG"),
    "JPEG RGB": JPEG,
    "JPEG, extended": with_marker(JPEG, b"\xff\xc0", b"\xff\xc1"),
    "JPEG, progressive": saved("RGB", "JPEG", progressive=True),
    "JPEG with restarts": saved("RGB", "JPEG", restart_marker_blocks=1, subsampling=0),
    "JPEG of red, green and blue": saved("RGB", "JPEG", keep_rgb=True),
    "JPEG, JFIF against the names of channels": JPEG[:COMPONENTS]
    + bytes([82, *JPEG[COMPONENTS + 1 : COMPONENTS + 3], 71, *JPEG[COMPONENTS + 4 : COMPONENTS + 6], 66])
    + with_marker(JPEG[COMPONENTS + 7 :], b"\x03\x01\x00\x02\x11\x03\x11", b"\x03R\x00G\x11B\x11"),
    "JPEG CMYK of Adobe": CMYK,
    "JPEG YCCK of Adobe": with_marker(CMYK, CMYK[CMYK.index(b"Adobe") :][:12], b"Adobe\0\x64\0\0\0\0\2"),
    "MPO": saved("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE), "red")]),
    **{f"TIFF {mode}": saved(mode, "TIFF") for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")},
    **{f"TIFF {mode}": saved(mode, "TIFF") for mode in ("I;16", "LAB")},
    **{
        f"TIFF {mode} by {name}": saved(mode, "TIFF", compression=name)
        for mode, name in (
            *(("RGB", name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
            *(("L", name) for name in ("jpeg", "tiff_deflate")),
            *(("1", name) for name in ("group3", "group4", "tiff_ccitt")),
            *(("CMYK", "jpeg"), ("YCbCr", "jpeg"), ("YCbCr", "tiff_lzw"), ("P", "tiff_lzw"), ("I;16", "tiff_lzw")),
        )
    },
    "TIFF with differences": saved("RGB", "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
    "TIFF by group 3 in two dimensions": saved("1", "TIFF", compression="group3", tiffinfo={292: 1}),
    "TIFF of frames": saved("RGB", "TIFF", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE), "red")]),
    "BigTIFF": saved("RGB", "TIFF", big_tiff=True),
    "TIFF by hand": tiff(RGB_8),
    "TIFF of Motorola": tiff(RGB_8, order=">"),
    "TIFF in planes": tiff(
        np.ascontiguousarray(RGB_8.transpose(2, 0, 1)).tobytes(),
        t258=[8] * 3,
        t277=3,
        t284=2,
        t273=[0] * 3,
        t279=[SIDE * SIDE] * 3,
    ),
    "TIFF in strips": tiff(
        strips(4), t258=[8] * 3, t259=8, t277=3, t278=4, t273=[0] * 4, t279=[len(strips(4)) // 4] * 4
    ),
    "TIFF of YCbCr of another standard": tiff(
        zlib.compress(RGB_8.tobytes()),
        t258=[8] * 3,
        t277=3,
        t259=8,
        photometric=6,
        t530=[1, 1],
        t529=[0.2126, 0.7152, 0.0722],
    ),
    "TIFF in tiles": tiff(RGB_8, **tiles()),
    "TIFF in tiles of planes": tiff(
        strips(3, PIXELS[:, :, :3].transpose(2, 0, 1)),
        t258=[8] * 3,
        t277=3,
        t259=8,
        t284=2,
        **(tiles() | {"t324": [0] * 3, "t325": [len(strips(3, PIXELS[:, :, :3].transpose(2, 0, 1))) // 3] * 3}),
    ),
    "TIFF of YCbCr of a studio": tiff(
        zlib.compress(RGB_8.tobytes()),
        t258=[8] * 3,
        t277=3,
        t259=8,
        photometric=6,
        t530=[1, 1],
        t532=[15.0, 235.0, 128.0, 240.0, 128.0, 240.0],
    ),
    "TIFF with white as zero": tiff(GREY, photometric=0),
    "TIFF of bits in reversed order": tiff(BITS.tobytes(), bits=1, photometric=1, t266=2),
    "TIFF of signed numbers": tiff(GREY.astype(np.int16).tobytes(), bits=16, photometric=1, t339=2),
    "TIFF of floats": tiff(GREY.astype(np.float32).tobytes(), bits=32, photometric=1, t339=3),
    "TIFF with alpha": tiff(PIXELS, t338=2),
    "TIFF with alpha that is multiplied in": tiff(PIXELS, t338=1),
    "TIFF with a channel that is no alpha": tiff(PIXELS, t338=0),
    "TIFF with a palette": tiff(GREY.tobytes(), photometric=3, t320=PALETTE),
    "TIFF CMYK by hand": tiff(PIXELS, photometric=5, t332=1, t334=4),
}


def content(data):
    """All of a picture that its reader uses: its form, its pixels, and its transparent colour or its alphas."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            is_indirect = image.mode in ("P", "PA") or "transparency" in image.info
            return image.mode, image.size, image.tobytes(), image.convert("RGBA").tobytes() if is_indirect else None
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_what_pillow_alone_reads(case):
    alone = content(CASES[case])
    assert isinstance(alone, tuple), alone
    assert content(picture_bytes(CASES[case]).data) == alone


UNPROVEN = {  # no encoder at hand
    **dict.fromkeys((0xC3, 0xC9, 0xCA, 0xCB, 0xCC), "lossless and arithmetic JPEG"),
    **dict.fromkeys(range(512, 522), "JPEG in TIFF of the old form"),
    325: "the format demands sizes of tiles, which libtiff guesses where they are missing",
}
ENTRIES = [
    (table, entry)
    for table in ("_PNG_CHUNKS", "_JPEG_SEGMENTS", "_JPEG_COLOR", "_TIFF_TAGS")
    for entry in getattr(module, table)
    if entry not in UNPROVEN
]


@pytest.mark.parametrize(("table", "entry"), ENTRIES)
def test_each_entry_of_the_tables_is_needed_by_a_picture(table, entry, monkeypatch):
    whole = getattr(module, table)
    less = {each: whole[each] for each in whole if each != entry} if isinstance(whole, dict) else {*whole} - {entry}
    monkeypatch.setattr(module, table, less)
    start = {"_PNG": "PNG", "_TIF": "TIFF", "_JPE": ("JPEG", "MPO")}[table[:4]]
    cases = [data for case, data in CASES.items() if case.startswith(start)]
    assert any(content(picture_bytes(data).data) != content(data) for data in cases)
