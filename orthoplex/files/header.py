"""The header of a safetensors file, read byte by byte.

Layout: 8 bytes little-endian length N, then N bytes of JSON, then the tensors' bytes. Reading the header by hand
lets a manifest be shown without touching a tensor or loading torch, and lets every damage be named.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthoplex.errors import ConceptFileError

HEADER_LIMIT_BYTES = 32 * 1024 * 1024
DTYPE_NAMES = ("F16", "BF16", "F32")
_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: data type name, shape, and ``[start, end)`` in the tensors' bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        metadata: The text pairs of ``__metadata__``.
        entries: Tensor name to its entry.
        data_start: Offset of the tensors' bytes in the file.
        file_bytes: Size of the whole file.
    """

    metadata: Mapping[str, str]
    entries: Mapping[str, TensorEntry]
    data_start: int
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read the header and nothing else.

    Raises:
        ConceptFileError: If the file is missing, is a pickle, is cut off inside the header, is no safetensors file, or
            cannot be read.
    """
    try:
        return _read(path)
    except OSError as error:
        raise ConceptFileError(f"{path}: cannot be read: {error}") from error


def _read(path: Path) -> Header:
    if path.is_dir():
        raise ConceptFileError(f"{path}: is a folder, allowed is a concept file")
    if not path.is_file():
        raise ConceptFileError(f"{path}: there is no such file")
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise ConceptFileError(f"{path}: '{path.suffix}' is a pickle format and is never opened, allowed: .safetensors")
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            raise ConceptFileError(f"{path}: holds a pickle and is never opened, allowed is a safetensors file")
        if len(start) < 8:
            raise ConceptFileError(f"{path}: holds {size} bytes, a safetensors file starts with 8 bytes of length")
        length = int.from_bytes(start, "little")
        if not 2 <= length <= HEADER_LIMIT_BYTES:
            raise ConceptFileError(
                f"{path}: is not a safetensors file: header length {length}, allowed are 2 to {HEADER_LIMIT_BYTES}"
            )
        if 8 + length > size:
            raise ConceptFileError(f"{path}: truncated: the header ends at byte {8 + length}, the file at byte {size}")
        text = file.read(length)
    return _parse(text, path, data_start=8 + length, file_bytes=size)


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of JSON text.

    Raises:
        ValueError: If it is no JSON, nested without end, or holds halves of characters, which no terminal can show.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _parse(text: bytes, path: Path, *, data_start: int, file_bytes: int) -> Header:
    try:
        values = parse_json(text.decode("utf-8"))
    except ValueError as error:
        raise ConceptFileError(f"{path}: is not a safetensors file: header is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConceptFileError(f"{path}: is not a safetensors file: header is a JSON {type(values).__name__}")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ConceptFileError(f"{path}: header key '__metadata__' must map text to text")
    entries = {name: _entry(name, value, path) for name, value in values.items()}
    return Header(metadata, entries, data_start, file_bytes)


def _entry(name: str, value: Any, path: Path) -> TensorEntry:  # noqa: ANN401 - any JSON value
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise ConceptFileError(f"{path}: header entry of tensor '{name}' is malformed: {value!r}") from error
    if not isinstance(shape, list) or not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise ConceptFileError(f"{path}: header entry of tensor '{name}' is malformed: {value!r}")
    if not isinstance(dtype, str) or dtype not in DTYPE_NAMES:
        raise ConceptFileError(f"{path}: tensor '{name}' has data type '{dtype}', allowed are {', '.join(DTYPE_NAMES)}")
    return TensorEntry(dtype, tuple(shape), start, end)
