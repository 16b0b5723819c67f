"""Tensors as bytes of a safetensors file.

The header is written by hand, so that equal contents are equal files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthoplex.errors import FileFormatError
from orthoplex.files.atomic import written_atomically
from orthoplex.files.header import FLOAT_NAMES, Header

DTYPES: dict[str, torch.dtype] = dict(zip(FLOAT_NAMES, (torch.float16, torch.bfloat16, torch.float32), strict=True))
"""Data types of weights by their names in a header."""
ALL_DTYPES: dict[str, torch.dtype] = DTYPES | {
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Data types of all tensors by their names in a header."""
_NAMES = {dtype: name for name, dtype in ALL_DTYPES.items()}


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None, *, overwrite: bool = True
) -> None:
    """Write a safetensors file whole or not at all; equal content gives equal bytes.

    Args:
        tensors: Name to tensor; how they lie in memory does not matter.
        path: The file to write.
        metadata: Text pairs for the header.
        overwrite: Replace an older file; else it is refused.

    Raises:
        OutputError: When it cannot be written, or is there and ``overwrite`` is False.
    """
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    with written_atomically(path, overwrite=overwrite) as temporary:
        write_in_order(types, tensors, metadata or {}, temporary, lambda name: tensors[name])


def write_in_order(
    types: Mapping[str, torch.dtype],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    path: Path,
    stored: Callable[[str], Tensor],
) -> None:
    """Write a safetensors file tensor by tensor; equal content gives equal bytes.

    Wider types come first, then names in order, as the libraries write them: every tensor starts at a multiple of its
    type's size.

    Args:
        types: Name to data type in the file.
        tensors: Name to tensor, for the shapes.
        metadata: Text pairs for the header.
        path: The file to write.
        stored: Name to the tensor in its data type, asked for when it is written.
    """
    ordered = dict(sorted(types.items(), key=lambda item: (-item[1].itemsize, item[0])))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, dtype in ordered.items():
        end = position + tensors[name].numel() * dtype.itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in ordered:
            file.write(tensor_bytes(stored(name)))


def read_tensors(path: Path, header: Header, names: Iterable[str]) -> dict[str, Tensor]:
    """Read tensors into memory of their own; nothing else of the file is in memory then, nor mapped.

    Args:
        path: A safetensors file.
        header: Its header, which was checked to be whole.
        names: The tensors.

    Raises:
        FileFormatError: When the file was replaced or cut, or a tensor is of a type that torch has not.
        OSError: When it cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    with path.open("rb", buffering=0) as file:
        header.check_unchanged(path, file.fileno())
        for name in names:
            entry = header.entries[name]
            if entry.dtype not in ALL_DTYPES:
                raise FileFormatError(f"{path}: tensor '{name}' is {entry.dtype}, allowed are {', '.join(ALL_DTYPES)}")
            tensor = torch.empty(entry.shape, dtype=ALL_DTYPES[entry.dtype])
            view: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
            file.seek(header.data_start + entry.start)
            while view:
                count = file.readinto(view)
                if not count:
                    raise FileFormatError(f"{path}: ends within tensor '{name}'; copy or download it again")
                view = view[count:]
            tensors[name] = tensor
    return tensors


def is_finite(tensor: Tensor) -> bool:
    """True if every number is finite; the smallest and largest say so many times as fast as a look at each."""
    return tensor.numel() == 0 or all(math.isfinite(value.item()) for value in torch.aminmax(tensor))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as raw bytes in row-major order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
