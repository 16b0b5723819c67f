"""The header of a safetensors file, read byte by byte.

Layout: 8 bytes little-endian length N, then N bytes of JSON, then the tensors' bytes. Reading the header by hand
lets a manifest be shown without touching a tensor or loading torch, and lets every damage be named.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from orthoplex.errors import FileFormatError
from orthoplex.files.json_text import parse_json
from orthoplex.files.recognition import FETCH_AGAIN, RISK, FileKind, pickle_content, recognised

_LONGEST_VALUE = 200
HEADER_LIMIT_BYTES = 32 * 1024 * 1024
FLOAT_NAMES = ("F16", "BF16", "F32")
"""Data types of weights, as a header names them."""
_ITEM_BYTES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}
_CURES = {
    **dict.fromkeys(("JSON", "text"), "get the .safetensors file"),
    "page": "download the .safetensors file again",
    "archive": "unpack it and name the .safetensors file in it",
    **dict.fromkeys(("GGUF", "data"), "allowed is a safetensors file"),
    "pickle": f"allowed is a safetensors file; {RISK}",
}
"""Sort of a file that stands in the place of a safetensors file -> the cure, where recognition knows none as good."""
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class TensorEntry:
    """The place of one tensor: data type name, shape, and ``[start, end)`` in the tensors' bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class FileStamp:
    """The number of a file in its file system, when it was written last in nanoseconds, and its size in bytes."""

    inode: int
    modified_ns: int
    num_bytes: int

    @staticmethod
    def of(status: os.stat_result) -> FileStamp:
        """Return that of an opened file."""
        return FileStamp(status.st_ino, status.st_mtime_ns, status.st_size)


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        metadata: The text pairs of ``__metadata__``.
        entries: Tensor name to its entry.
        data_start: Offset of the tensors' bytes in the file.
        file_bytes: Size of the whole file.
        stamp: What tells the file from another that takes its place; None for a header without a file.
    """

    metadata: Mapping[str, str]
    entries: Mapping[str, TensorEntry]
    data_start: int
    file_bytes: int
    stamp: FileStamp | None = None

    def check_unchanged(self, path: Path, descriptor: int) -> None:
        """Refuse an opened file that is another than the one whose header this is.

        Args:
            path: The file, for the error message.
            descriptor: Of the opened file.

        Raises:
            FileFormatError: If it was replaced or written anew.
        """
        if self.stamp is not None and FileStamp.of(os.fstat(descriptor)) != self.stamp:
            raise FileFormatError(f"{path}: was replaced while it was read; read it once more")

    def check_whole(self, path: Path) -> None:
        """Refuse a file whose tensors take other bytes than the header announces, or share some.

        Args:
            path: The file, for the error messages.

        Raises:
            FileFormatError: If a tensor's bytes do not fit its shape, tensors overlap or leave a gap, or the file ends
                too early or too late.
        """
        for name, entry in self.entries.items():
            size = _ITEM_BYTES.get(entry.dtype)
            if size is not None and entry.end - entry.start != math.prod(entry.shape) * size:
                raise FileFormatError(
                    f"{path}: is not a whole safetensors file: tensor '{name}' of shape {entry.shape} takes "
                    f"{math.prod(entry.shape) * size} bytes of {entry.dtype}, the header gives it "
                    f"{entry.end - entry.start}"
                )
        end = 0
        for name, entry in sorted(self.entries.items(), key=lambda item: (item[1].start, item[1].end)):
            if entry.start != end:
                raise FileFormatError(
                    f"{path}: is not a whole safetensors file: tensor '{name}' starts at byte {entry.start} of the "
                    f"tensors, allowed is {end}, where the tensor before it ends"
                )
            end = entry.end
        held = self.file_bytes - self.data_start
        if held != end:
            damage = "truncated" if held < end else "has bytes after its end"
            cure = f"; {FETCH_AGAIN}" if held < end else ""
            raise FileFormatError(f"{path}: {damage}: holds {held} bytes of tensors, the header announces {end}{cure}")


def read_header(path: Path) -> Header:
    """Read the header and nothing else; ``Header.check_whole`` compares it with the rest of the file.

    Args:
        path: The file.

    Raises:
        FileFormatError: If the file is missing, is a pickle, is cut off inside the header, is no safetensors file, or
            cannot be read; names what it is, where its content says so.
    """
    try:
        text, stamp = _read(path)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
    return _parse(text, path, stamp)


def _read(path: Path) -> tuple[bytes, FileStamp]:
    """Return the JSON of a header, and what tells the file from another."""
    if path.is_dir():
        raise FileFormatError(f"{path}: {_folder(path)}")
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such file")
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise FileFormatError(f"{path}: {_pickle_by_name(path)}")
    with path.open("rb", buffering=0) as file:
        stamp = FileStamp.of(os.fstat(file.fileno()))
        start, size = file.read(8), stamp.num_bytes
        length, first = int.from_bytes(start, "little"), file.read(1)
        # a header of 640 bytes starts as a pickle does, and has an allowed length
        if len(start) < 8 or not 2 <= length <= HEADER_LIMIT_BYTES or first not in (b"", b"{"):
            raise FileFormatError(f"{path}: {_not_safetensors(path, size, start + first)}")
        if 8 + length > size:
            raise FileFormatError(
                f"{path}: truncated: the header ends at byte {8 + length}, the file at byte {size}; {FETCH_AGAIN}"
            )
        return first + file.read(length - 1), stamp


def _folder(path: Path) -> str:
    """Describe a folder that stands in the place of a safetensors file."""
    names = sorted(each.name for each in path.glob("*.safetensors"))
    if not names:
        return "is a folder, allowed is a safetensors file"
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"is a folder, allowed is a safetensors file; name each file in it ({path / names[0]}{others})"


def _pickle_by_name(path: Path) -> str:
    """Describe a file whose name says that it is a pickle; its content may be another."""
    content, kind = pickle_content(path), recognised(path)
    known = f"; it is {_with_cure(kind)}" if kind is not None and kind.sort != "pickle" else ""
    known = f"; it holds {content}" if content else known
    risk = "" if content is None else f"; {RISK}"
    return f"'{path.suffix}' is a pickle format and is never opened, allowed: .safetensors{known}{risk}"


def _not_safetensors(path: Path, size: int, start: bytes) -> str:
    """Describe a file that does not start as a safetensors file does."""
    kind = recognised(path)
    if size < 8:
        line = f"holds {size} bytes, a safetensors file starts with 8 bytes of length"
        return line + (f"; it is {_with_cure(kind)}" if kind else "")
    if kind is None:
        return f"is no safetensors file (it begins with the bytes {start[:8].hex(' ')}); get the .safetensors file"
    if kind.sort == "pickle":
        content = pickle_content(path)
        inside = f" ({content})" if content else ""
        return f"holds a pickle and is never opened{inside}, {_CURES['pickle']}"
    return f"is not a safetensors file: it is {_with_cure(kind)}"


def _with_cure(kind: FileKind) -> str:
    cure = _CURES.get(kind.sort, kind.cure)
    return f"{kind.noun}; {cure}" if cure else kind.noun


def _parse(text: bytes, path: Path, stamp: FileStamp) -> Header:
    try:
        values = parse_json(text.decode("utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path}: is not a safetensors file: header is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FileFormatError(f"{path}: is not a safetensors file: header is a JSON {type(values).__name__}")
    table = cast(dict[str, Any], values)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise FileFormatError(f"{path}: header key '__metadata__' must map text to text")
    pairs = cast(dict[str, Any], metadata)
    if not all(isinstance(value, str) for value in pairs.values()):
        raise FileFormatError(f"{path}: header key '__metadata__' must map text to text")
    entries = {name: _entry(name, value, path) for name, value in table.items()}
    return Header(pairs, entries, 8 + len(text), stamp.num_bytes, stamp)


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _entry(name: str, value: Any, path: Path) -> TensorEntry:  # noqa: ANN401 - JSON
    if not name.isprintable():
        raise FileFormatError(f"{path}: tensor {ascii(name)} has characters that cannot be shown, allowed are others")
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: header entry of tensor '{name}' is malformed: {_short(value)}") from error
    sizes = cast(list[Any], shape) if isinstance(shape, list) else None
    if sizes is None or not all(type(number) is int and number >= 0 for number in (*sizes, start, end)):
        raise FileFormatError(f"{path}: header entry of tensor '{name}' is malformed: {_short(value)}")
    if not isinstance(dtype, str):
        raise FileFormatError(f"{path}: tensor '{name}' has data type '{dtype}', allowed are names of data types")
    return TensorEntry(dtype, tuple(sizes), start, end)
