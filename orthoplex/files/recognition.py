"""The kinds of files, by their content and not by their names."""

from __future__ import annotations

import codecs
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

Sort = Literal[
    "empty", "zeros", "pointer", "page", "JSON", "text", "picture", "film", "GGUF", "pickle", "archive", "data"
]

_START_BYTES = 64 * 1024
_SHOWN = 60
_WIDE_LETTERS = 8
"""Bytes of four letters of UTF-16."""
_LFS = b"version https://git-lfs"
_PAGE = re.compile(
    rb"<(!--|!doctype\s|\?xml\b|svg\s|html(\s[^<>]*=|>\s*<)|(html|head|body|title|script|meta|error)\b[^<>]*>\s*<)",
    re.IGNORECASE,
)
"""A tag alone is none: captions begin with ``<head>`` where a concept has that name."""
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_FOREIGN_PICTURES = {
    b"8BPS": "PSD",
    b"%!PS": "PostScript",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
_DATA = {
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "an array of NumPy (.npy)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"SQLite format 3\0": "a database (SQLite)",
    b"PAR1": "a table (Parquet)",
    b"ARROW1": "a table (Arrow)",
    b"ID3": "a sound (MP3)",
    b"OggS": "a sound (Ogg)",
    b"fLaC": "a sound (FLAC)",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a document of Office",
    b"wOFF": "a font",
    b"OTTO": "a font",
    b"\0asm": "a program (WebAssembly)",
}
_ONNX = re.compile(rb"\x08[\x01-\x14](\x12[\x01-\x7f][ -~]{3}|[:B][\x02-\xff])", re.DOTALL)
"""The version of its form, then who made it, the network, or its operators."""
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx"), "HEIC"),
    **dict.fromkeys((b"heif", b"mif1", b"msf1"), "HEIF"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
"""Brands of the container that films and newer pictures share."""
_AS_JPEG = "save it as JPEG or PNG"
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_OLD_PICKLE = re.compile(
    rb"\((?:d|l|i\w[\w.]*\n\w+\n)(?:p\d+\n|q.|[SVIFL(.]|c\w)|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|[\]}]q[\0-\xff][(.]?|\]\(|\}\(",
    re.DOTALL,
)
"""Protocols 0 and 1: a dictionary, a list or an object."""
_CONTENT_OF_PICKLES = {
    b"string_to_param": "a textual-inversion embedding of another program",
    b"emb_params": "a textual-inversion embedding of another program",
    b"lora_": "a LoRA of another program",
    b"model.diffusion_model": "a whole model in one file",
    b"state_dict": "a checkpoint of another program",
}
RISK = "a pickle can run any program when it is loaded"
FETCH_AGAIN = "the download or the copy did not finish; fetch it again"


@final
@dataclass(frozen=True)
class FileKind:
    """The kind of a file.

    Attributes:
        sort: Its sort, for decisions.
        noun: Its kind in words, as in "a web page, not the file itself".
        cure: The next step of the user, whatever the file was meant for; empty if that depends on it.
    """

    sort: Sort
    noun: str
    cure: str = ""

    @property
    def sentence(self) -> str:
        """Noun and cure, as in "an empty file; fetch it again"."""
        return f"{self.noun}; {self.cure}" if self.cure else self.noun


def recognised(path: Path) -> FileKind | None:
    """Return the kind of a file, or None if it is unknown; nothing is unpacked but the list of an archive.

    Args:
        path: An existing file.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    content = _content_of_pickle(start, path)
    return recognised_content(start) if content is None else _pickle(content)


def recognised_content(content: bytes) -> FileKind | None:
    """Return the kind of a file by its bytes, or by the first 64 KiB of them; None if it is unknown."""
    start = content[:_START_BYTES]
    if not start:
        return FileKind("empty", "an empty file", FETCH_AGAIN)
    if not start.strip(b"\0"):
        return FileKind("zeros", "a file that begins with zeros alone", FETCH_AGAIN)
    if (wide := _from_utf_16(start)) is not None:
        return pointer_or_page(wide) or _text(wide)
    return _binary(start) or pointer_or_page(start) or _text(start)


def _from_utf_16(start: bytes) -> bytes | None:
    """Return a text of UTF-16 as UTF-8: one with a mark, or one that begins with four letters of ASCII; else None."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif (
        len(start) >= _WIDE_LETTERS
        and not any(start[1:_WIDE_LETTERS:2])
        and start[:_WIDE_LETTERS:2].strip(b"\0").isascii()
    ):
        encoding = "utf-16-le" if start[:_WIDE_LETTERS:2].isalnum() or start.startswith((b"<", b"{")) else ""
    else:
        encoding = ""
    try:
        return start[: len(start) // 2 * 2].decode(encoding).encode() if encoding else None
    except UnicodeDecodeError:
        return None


def pointer_or_page(content: bytes) -> FileKind | None:
    """Return the kind of a text that stands in the place of a file: a pointer of git-lfs, or a web page; else None."""
    start = content[:_START_BYTES]
    if start.startswith(_LFS):
        size = re.search(rb"^size (\d+)", start, re.MULTILINE)
        bytes_there = f" of {int(size[1])} bytes" if size else ""
        return FileKind(
            "pointer", f"a git-lfs pointer to a file{bytes_there}, not the file itself", "run: git lfs pull"
        )
    if _PAGE.match(start.lstrip(b"\xef\xbb\xbf \t\r\n")):
        return FileKind(
            "page",
            "a web page, not the file itself: a site answered the download with a page, for a login or an error",
            "download the file again",
        )
    return None


def is_pointer(path: Path) -> bool:
    """Return True if a file is a pointer of git-lfs, which stands where the file itself was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def pickle_content(path: Path) -> str | None:
    """Return the content of a pickle, by words in it, empty if they say nothing; None for a file that is no pickle.

    It is never opened as a pickle.

    Args:
        path: An existing file.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as file:
        return _content_of_pickle(file.read(_START_BYTES), path)


def _pickle(content: str) -> FileKind:
    return FileKind("pickle", f"a pickle ({content})" if content else "a pickle", RISK)


def _binary(start: bytes) -> FileKind | None:
    for mark, name in _PICTURES.items():
        if start.startswith(mark) and not (mark == b"BM" and start[6:10] != b"\0\0\0\0"):
            return FileKind("picture", f"a picture ({name})")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return FileKind("picture", "a picture (WebP)")
    for mark, name in _FOREIGN_PICTURES.items():
        if start.startswith(mark):
            return FileKind("picture", f"a picture ({name})", _AS_JPEG)
    if start[4:8] == b"ftyp":
        name = _BRANDS.get(start[8:12])
        if name is None:
            return FileKind("film", "a film (MP4 or QuickTime)", "save single frames as JPEG or PNG")
        return FileKind("picture", f"a picture ({name})", "" if name == "AVIF" else _AS_JPEG)
    if start.startswith(b"GGUF"):
        return FileKind("GGUF", "a GGUF file, which stable-diffusion.cpp and llama.cpp read")
    if start.startswith(b"MZ") and b"\0" in start[2:64]:
        return FileKind("data", "a program of Windows")
    for mark, noun in _DATA.items():
        if start.startswith(mark):
            return FileKind("data", noun)
    if _ONNX.match(start):
        return FileKind("data", "a network in the form of ONNX")
    if _is_pickle(start):
        return _pickle(_words_of_pickle(start))
    for mark, name in _ARCHIVES.items():
        if start.startswith(mark):
            return FileKind("archive", f"an archive ({name})", "unpack it")
    return FileKind("archive", "an archive (tar)", "unpack it") if start[257:262] == b"ustar" else None


def _content_of_pickle(start: bytes, path: Path) -> str | None:
    pickled = _zipped_pickle(path) if start.startswith(b"PK") else start if _is_pickle(start) else None
    return None if pickled is None else _words_of_pickle(pickled)


def _is_pickle(start: bytes) -> bool:
    return start.startswith(_PICKLES) or _OLD_PICKLE.match(start) is not None


def _words_of_pickle(pickled: bytes) -> str:
    return next((words for mark, words in _CONTENT_OF_PICKLES.items() if mark in pickled), "")


def _zipped_pickle(path: Path) -> bytes | None:
    """Return the first bytes of the pickle in a zip archive, as PyTorch writes them; None for other archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if name is None:
                return None
            with archive.open(name) as inside:
                return inside.read(_START_BYTES)
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _text(start: bytes) -> FileKind | None:
    try:
        text = start.decode("utf-8-sig" if len(start) < _START_BYTES else "latin-1").strip()
    except UnicodeDecodeError:
        return None
    if not text or not text.isprintable() and any(ord(letter) < 32 and letter not in "\t\r\n" for letter in text):
        return None
    shown = " ".join(text.split())
    shown = repr(shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…")
    if text[0] in "{[" and _is_json(text, cut=len(start) == _START_BYTES):
        return FileKind("JSON", f"JSON text ({shown}): a site's answer or settings, not the file itself")
    return FileKind("text", f"a text file ({shown}), not the file itself")


def _is_json(text: str, *, cut: bool) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return cut
    return True
