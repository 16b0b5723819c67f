"""Numbers of tokens and of layers' inputs as text of a manifest."""

from __future__ import annotations

import base64
import binascii
import struct

import torch
from torch import Tensor

from orthoplex.errors import ConceptFileError


def encode_token(vector: Tensor) -> str:
    """Write an embedding, ``(dim,)`` or ``(L, dim)``, or a key and a value, as base64 of little-endian float32.

    Row by row.
    """
    return _encode(vector.detach().to("cpu", torch.float32), "f")


def encode_inputs(inputs: Tensor) -> str:
    """Write layers' inputs, ``(k, in)``, as base64 of little-endian float16, row by row."""
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
        what: Name of the value in error messages.
        rows: Name of its rows in error messages.

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
    """Read layers' inputs, float16 ``(k, width)``, from base64.

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
