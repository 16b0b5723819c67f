"""What is not the picture does not decide whether it is read."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from orthoplex.errors import DatasetError
from orthoplex.files import PICTURE_SUFFIXES, picture_size, read_picture

TOP = np.zeros((4, 6, 3), dtype=np.uint8)
TOP[:2] = (200, 40, 90)
"""Wide, and its upper half is coloured."""


def encoded(format, **options):
    stream = io.BytesIO()
    Image.fromarray(TOP).save(stream, format=format, **options)
    return stream.getvalue()


def chunk(kind, value, *, is_whole=True):
    return struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value) if is_whole else 7)


def png(*chunks, behind=b""):
    data = encoded("PNG")
    return data[:33] + b"".join(chunks) + data[33:] + behind


def jpeg(*segments, behind=b""):
    data = encoded("JPEG", quality=100, subsampling=0)
    return data[:2] + b"".join(segments) + data[2:] + behind


def segment(marker, value, length=None):
    return bytes([0xFF, marker]) + struct.pack(">H", len(value) + 2 if length is None else length) + value


def exif(orientation, *others):
    """EXIF data with entries (tag, type, count, value) behind the orientation."""
    entries = [(0x0112, 3, 1, orientation), *others]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)


def tiff(orientation):
    """A picture whose resolution is a text, and whose other metadata are noise."""
    data = encoded("TIFF", dpi=(72, 72), tiffinfo={274: orientation, 34675: NOISE, 34377: NOISE})
    for tag in (282, 283):
        data = data.replace(struct.pack("<HHI", tag, 5, 1), struct.pack("<HHI", tag, 2, 4))
    return data


NOISE = random.Random(5).randbytes(400)
TEXT_RESOLUTION = exif(6, (0x011A, 2, 4, 0x20323700), (0x0128, 3, 1, 2))
XMP = b'<rdf:Description tiff:Orientation="6"/>'
HUGE = zlib.compress(b"x" * 2_000_000)

UPRIGHT = {
    "compressed text of two megabytes": png(chunk(b"zTXt", b"workflow\0\0" + HUGE)),
    "compressed international text": png(chunk(b"iTXt", b"workflow\0\1\0\0\0" + HUGE)),
    "hundred megabytes of text": png(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_000_000))] * 100),
    "text with an unknown compression": png(chunk(b"zTXt", b"a\0\x09" + NOISE)),
    "colour profile of no known compression": png(chunk(b"iCCP", b"a\0\x09" + NOISE)),
    "colour profile that unpacks to megabytes": png(chunk(b"iCCP", b"a\0\0" + HUGE)),
    "short chunks": png(
        *(chunk(kind, b"") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"acTL", b"eXIf"))
    ),
    "wrong checksums": png(chunk(b"tEXt", b"a\0b", is_whole=False), chunk(b"eXIf", NOISE, is_whole=False)),
    "chunk of a program": png(chunk(b"caBX", NOISE), chunk(b"vpAg", NOISE)),
    "frames that are damaged": png(chunk(b"acTL", struct.pack(">2I", 3, 0)), chunk(b"fcTL", NOISE[:26])),
    "EXIF of noise": png(chunk(b"eXIf", NOISE)),
    "bytes behind a PNG": png(behind=NOISE),
    "EXIF of noise in a JPEG": jpeg(segment(0xE1, b"Exif\0\0" + NOISE)),
    "EXIF whose directory is outside": jpeg(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40))),
    "JFIF that is cut off": jpeg(segment(0xE0, b"JFIF")),
    "Photoshop data that are cut off": jpeg(segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0")),
    "Photoshop data of a byte": jpeg(segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\x01a")),
    "colour profile that is cut off": jpeg(segment(0xE2, b"ICC_PROFILE\0")),
    "frames of an MPO that are not there": jpeg(segment(0xE2, b"MPF\0" + NOISE)),
    "Adobe segment that is cut off": jpeg(segment(0xEE, b"Adobe")),
    "segment that is longer than the file": jpeg(segment(0xE5, b"", 65535)),
    "segment without a length": jpeg(segment(0xE5, b"", 0)),
    "unknown markers and junk": jpeg(b"\xff\x01", b"junk", b"\xff\xff\xff"),
    "comment": jpeg(segment(0xFE, NOISE)),
    "bytes behind a JPEG": jpeg(behind=NOISE),
    "EXIF of noise in a WebP": encoded("WEBP", lossless=True, exif=NOISE, xmp=NOISE, icc_profile=NOISE),
    "comment in a GIF": encoded("GIF", comment=NOISE * 5),
    "resolution that is a text in a TIFF": tiff(1),
}
TURNED = {
    "resolution that is a text": jpeg(segment(0xE1, b"Exif\0\0" + TEXT_RESOLUTION)),
    "resolution that is a text in a PNG": png(chunk(b"eXIf", TEXT_RESOLUTION)),
    "resolution that is a text in a WebP": encoded("WEBP", lossless=True, exif=TEXT_RESOLUTION),
    "more entries than there are": jpeg(segment(0xE1, b"Exif\0\0" + exif(6)[:8] + b"\xff\xff" + exif(6)[10:])),
    "second directory of noise": jpeg(segment(0xE1, b"Exif\0\0" + exif(6, (0x8769, 4, 1, 30)) + NOISE)),
    "orientation that is long": jpeg(segment(0xE1, b"Exif\0\0" + exif(6).replace(b"\x12\x01\x03", b"\x12\x01\x04"))),
    "damaged EXIF and XMP": jpeg(
        segment(0xE1, b"Exif\0\0" + NOISE), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    ),
    "XMP in a PNG": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))),
    "EXIF as text": png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  20\n" + exif(6).hex().encode())),
    "EXIF as compressed text": png(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  20\n" + exif(6).hex().encode()))
    ),
    "resolution that is a text in a TIFF": tiff(6),
}


def read(tmp_path, data):
    path = tmp_path / "one.png"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        size = picture_size(path)
        image = read_picture(path)
    assert not escaped and (size.width, size.height) == image.size
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("what", UPRIGHT)
def test_what_is_not_the_picture_is_passed_over(tmp_path, what):
    assert np.abs(read(tmp_path, UPRIGHT[what]) - TOP).max() < 12


@pytest.mark.parametrize("what", TURNED)
def test_the_orientation_is_read_beside_damage(tmp_path, what):
    assert np.abs(read(tmp_path, TURNED[what]) - np.rot90(TOP, -1)).max() < 12


def test_exif_of_an_avif_is_passed_over_and_its_own_rotation_is_not(tmp_path):
    if ".avif" not in PICTURE_SUFFIXES:
        pytest.skip("this Pillow has no AVIF")
    entry = Image.Exif()
    entry[ExifTags.Base.Orientation], entry[ExifTags.Base.ImageDescription] = 6, "x" * 40
    data = encoded("AVIF", exif=entry, quality=100)
    place = data.index(b"x" * 40)
    broken = data[: place - 30] + NOISE[:30] + data[place:]
    assert read(tmp_path, data).shape == read(tmp_path, broken).shape == (6, 4, 3)


@pytest.mark.parametrize(("suffix", "format"), [(".gif", "GIF"), (".webp", "WEBP"), (".apng", "PNG"), (".tif", "TIFF")])
def test_the_first_of_several_frames_is_read(tmp_path, suffix, format):
    path = tmp_path / f"moving{suffix}"
    options = {"lossless": True} if format == "WEBP" else {}
    first, second = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
    first.save(path, format=format, save_all=True, append_images=[second], **options)
    assert picture_size(path).has_more and read_picture(path).getpixel((1, 1)) == (255, 0, 0)
    first.save(path, format=format, **options)
    assert not picture_size(path).has_more


def test_big_tiff_is_read(tmp_path):
    path = tmp_path / "big.tif"
    Image.fromarray(TOP).save(path, big_tiff=True, tiffinfo=TiffImagePlugin.ImageFileDirectory_v2())
    assert np.array_equal(np.asarray(read_picture(path)), TOP)


def damaged(kind):
    match kind:
        case "truncated PNG":
            return encoded("PNG")[:-30]
        case "truncated JPEG":
            return encoded("JPEG")[:-30]
        case "bomb":
            header = chunk(b"IHDR", struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0))
            return encoded("PNG")[:8] + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
        case "empty":
            return b""
        case "HEIC":
            return b"\0\0\0\x18ftypheic" + NOISE
        case "pointer":
            return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        case "archive":
            return b"PK\x03\x04" + NOISE
        case "noise":
            return NOISE
        case "PNG of which the mark alone is left":
            return encoded("PNG")[:8] + NOISE
        case "page":
            return b"<!DOCTYPE html>"
        case _:
            return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated PNG", "truncated"),
        ("truncated JPEG", "Truncated"),
        ("bomb", "it has more than 178956970 pixels; make it smaller"),
        ("empty", "it is an empty file; the download or the copy did not finish; fetch it again"),
        ("HEIC", r"it is a picture \(HEIC\); save it as JPEG or PNG"),
        ("pointer", "it is a git-lfs pointer to a file of 1 bytes, not the file itself; run: git lfs pull"),
        ("page", "it is a web page, not the file itself: .*; download the file again"),
        ("archive", r"it is an archive \(zip\); unpack it"),
        ("noise", "it is damaged, or no picture of the formats .*BMP.*JPEG, PNG"),
        ("PNG of which the mark alone is left", "it is damaged, or no picture of the formats"),
        ("a program of Postscript, which is not run", r"it is a picture \(PostScript\); save it as JPEG or PNG"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, kind, message):
    path = tmp_path / "one.jpg"
    path.write_bytes(damaged(kind))
    with pytest.raises(DatasetError, match=f"^picture .*one.jpg cannot be read: .*{message}") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "one.png"
    path.write_bytes(encoded("PNG"))

    def stumble(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", stumble)
    with pytest.raises(DatasetError, match=r"picture .*one.png cannot be read: ZeroDivisionError"):
        read_picture(path)


def test_a_lack_of_memory_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    path = tmp_path / "one.png"
    path.write_bytes(encoded("PNG"))

    def stumble(*_, **__):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", stumble)
    with pytest.raises(MemoryError):
        read_picture(path)


def test_large_pictures_are_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert read(tmp_path, encoded("PNG")).shape == (4, 6, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    (tmp_path / "one.png").write_bytes(encoded("PNG"))
    with pytest.raises(DatasetError, match=r"one.png cannot be read: it has more than 20 pixels; make it smaller"):
        read_picture(tmp_path / "one.png")


@pytest.mark.parametrize(("bits", "clear"), [(1, 0), (1, 1), (2, 1), (2, 3), (4, 0), (4, 3), (4, 15), (8, 7)])
def test_grey_of_few_bits_may_be_transparent(tmp_path, bits, clear):
    def chunk(kind, value):
        return struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))

    most = (1 << bits) - 1
    other = 1 if clear != 1 else 0
    first = (clear << 8 - bits) | (other << 8 - 2 * bits) if bits < 8 else clear
    row = bytes([0, first, other] if bits == 8 else [0, first])
    header = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", zlib.compress(row)), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    grey = other * 255 // most
    assert np.asarray(read_picture(tmp_path / "a.png")).tolist() == [[[255] * 3, [grey] * 3]]


def test_a_picture_that_is_gone_is_told_without_numbers(tmp_path):
    with pytest.raises(DatasetError) as error:
        read_picture(tmp_path / "a.png")
    assert str(error.value) == f"picture {tmp_path / 'a.png'} cannot be read: No such file or directory"
