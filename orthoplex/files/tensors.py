"""Tensors as bytes of a safetensors file.

The header is written by hand, so that equal contents are equal files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthoplex.files.header import DTYPE_NAMES

DTYPES: dict[str, torch.dtype] = dict(zip(DTYPE_NAMES, (torch.float16, torch.bfloat16, torch.float32), strict=True))
_NAMES = {dtype: name for name, dtype in DTYPES.items()} | {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Write a safetensors file; equal content gives equal bytes.

    Args:
        tensors: Name to tensor of data type float16, bfloat16 or float32.
        metadata: Text pairs for the header.
        path: The file to write.
    """
    write_in_order(
        {name: tensors[name].dtype for name in sorted(tensors)}, tensors, metadata, path, lambda name: tensors[name]
    )


def write_in_order(
    types: Mapping[str, torch.dtype],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    path: Path,
    stored: Callable[[str], Tensor],
) -> None:
    """Write a safetensors file tensor by tensor; equal content in one order gives equal bytes.

    Args:
        types: Name to data type in the file, in the order of the file.
        tensors: Name to tensor, for the shapes.
        metadata: Text pairs for the header.
        path: The file to write.
        stored: Name to the tensor in its data type, asked for when it is written.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, dtype in types.items():
        end = position + tensors[name].numel() * dtype.itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in types:
            file.write(tensor_bytes(stored(name)))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as raw bytes in row-major order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
