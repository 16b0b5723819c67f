"""Tensors as bytes of a safetensors file and as text of a manifest.

The header is written by hand, so that equal concepts are equal files.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthoplex.concepts.header import DTYPE_NAMES
from orthoplex.errors import ConceptFileError

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


def encode_token(vector: Tensor) -> str:
    """Write an embedding, ``(dim,)`` or ``(L, dim)``, or a key and a value, as base64 of little-endian float32.

    Row by row.
    """
    return _encode(vector.detach().to("cpu", torch.float32), "f")


def encode_inputs(inputs: Tensor) -> str:
    """Write what layers see, ``(k, in)``, as base64 of little-endian float16, row by row."""
    return _encode(inputs.detach().to("cpu", torch.float16), "e")


def _encode(numbers: Tensor, kind: str) -> str:
    values = numbers.flatten().tolist()
    return base64.b64encode(struct.pack(f"<{len(values)}{kind}", *values)).decode("ascii")


def decode_token(
    text: str, num_rows: int | None = None, *, what: str = "token embedding", rows: str = "the token_layers"
) -> Tensor:
    """Read a ``(dim,)`` float32 embedding from base64, or rows ``(num_rows, dim)``.

    Args:
        text: The base64.
        num_rows: How many rows it must make; None for a single vector.
        what: What it is, for the error messages.
        rows: What its rows are, for the error messages.

    Raises:
        ConceptFileError: If the text is not base64 of whole float32 numbers, or these do not make ``num_rows`` rows.
    """
    numbers = torch.tensor(_decode(text, "f", what), dtype=torch.float32)
    if num_rows is None:
        return numbers
    if len(numbers) % num_rows:
        raise ConceptFileError(f"{what} holds {len(numbers)} numbers, allowed is a multiple of {num_rows}, {rows}")
    return numbers.view(num_rows, -1)


def decode_inputs(text: str, width: int) -> Tensor:
    """Read what layers of an input width see, float16 ``(k, width)``, from base64.

    Raises:
        ConceptFileError: If the text is not base64 of whole float16 numbers, or these do not make rows.
    """
    numbers = torch.tensor(_decode(text, "e", "it"), dtype=torch.float16)
    if width < 1 or len(numbers) % width:
        raise ConceptFileError(f"it holds {len(numbers)} numbers, allowed is a multiple of {width}, the layers' width")
    return numbers.view(-1, width)


def _decode(text: str, kind: str, what: str) -> tuple[float, ...]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConceptFileError(f"{what} is not base64: {error}") from error
    size = struct.calcsize(kind)
    if len(data) == 0 or len(data) % size:
        raise ConceptFileError(f"{what} holds {len(data)} bytes, allowed is a positive multiple of {size}")
    return struct.unpack(f"<{len(data) // size}{kind}", data)
