"""What a file is that is no safetensors file, told by its content, and what to do about it."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from pathlib import Path

_START_BYTES = 64 * 1024
_SHOWN = 60
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg", b"<error")
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_ARCHIVES = {
    b"PK": "zip",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_CONTENT_OF_PICKLES = {
    b"string_to_param": "a textual-inversion embedding of another program",
    b"emb_params": "a textual-inversion embedding of another program",
    b"lora_": "a LoRA of another program",
    b"model.diffusion_model": "a whole model in one file",
    b"state_dict": "a checkpoint of another program",
}
RISK = "a pickle can run any program when it is loaded"
FETCH_AGAIN = "the download or the copy did not finish; fetch it again"


def recognised(path: Path) -> str | None:
    """Return in words what a file or folder is and what to do, as in "is an empty file; …"; None if it is unknown.

    Args:
        path: An existing file or folder that is no whole safetensors file.

    Raises:
        OSError: When it cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start:
        return f"is an empty file; {FETCH_AGAIN}"
    if not start.strip(b"\0"):
        return f"begins with zeros alone; {FETCH_AGAIN}"
    return _binary(start, path) or _text(start)


def _folder(path: Path) -> str:
    if (path / "model_index.json").is_file():
        return "is a folder with a pipeline, allowed is a safetensors file; a pipeline is a base (--base)"
    names = sorted(each.name for each in path.glob("*.safetensors"))
    if not names:
        return "is a folder, allowed is a safetensors file"
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"is a folder, allowed is a safetensors file; name each file in it ({path / names[0]}{others})"


def _binary(start: bytes, path: Path) -> str | None:
    for mark, kind in _PICTURES.items():
        if start.startswith(mark) and not (mark == b"BM" and start[6:10] != b"\0\0\0\0"):
            return f"is a picture ({kind}), no concept; orthoplex train makes a concept of a folder of pictures"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "is a picture (WebP), no concept; orthoplex train makes a concept of a folder of pictures"
    if start.startswith(b"GGUF"):
        return "is a GGUF file, which stable-diffusion.cpp and llama.cpp read; allowed is a safetensors file"
    content = _content_of_pickle(start, path)
    if content is not None:
        inside = f" ({content})" if content else ""
        return f"holds a pickle and is never opened{inside}, allowed is a safetensors file; {RISK}"
    for mark, kind in _ARCHIVES.items():
        if start.startswith(mark):
            return f"is an archive ({kind}); unpack it and name the .safetensors file in it"
    return "is an archive (tar); unpack it and name the .safetensors file in it" if start[257:262] == b"ustar" else None


def pickle_content(path: Path) -> str | None:
    """Return what a pickle holds, by words in it, empty if they say nothing; None for a file that is no pickle.

    It is never opened as a pickle.

    Args:
        path: An existing file.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as file:
        return _content_of_pickle(file.read(_START_BYTES), path)


def _content_of_pickle(start: bytes, path: Path) -> str | None:
    pickled = _zipped_pickle(path) if start.startswith(b"PK") else start if start.startswith(_PICKLES) else None
    if pickled is None:
        return None
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


def _text(start: bytes) -> str | None:
    if start.startswith(_LFS):
        size = re.search(rb"^size (\d+)", start, re.MULTILINE)
        bytes_there = f" of {int(size[1])} bytes" if size else ""
        return f"is a git-lfs pointer to a file{bytes_there}, not the file itself; run: git lfs pull"
    try:
        text = start.decode("utf-8-sig" if len(start) < _START_BYTES else "latin-1").strip()
    except UnicodeDecodeError:
        return None
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:12].lower().startswith(_PAGES):
        return (
            "is a web page, not the file itself: a site answered the download with a page, for a login or an error; "
            "download the .safetensors file again"
        )
    if not text or not text.isprintable() and any(ord(letter) < 32 and letter not in "\t\r\n" for letter in text):
        return None
    shown = " ".join(text.split())
    shown = repr(shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…")
    if text[0] in "{[" and _is_json(text, cut=len(start) == _START_BYTES):
        return f"is JSON text ({shown}): a site's answer or settings, not the file itself; get the .safetensors file"
    return f"is a text file ({shown}), not the file itself; get the .safetensors file"


def _is_json(text: str, *, cut: bool) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return cut
    return True
