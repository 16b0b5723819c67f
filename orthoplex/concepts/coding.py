"""Numbers of blocks as text of a manifest, and back.

Base64 of the numbers as they are: compression by zlib makes the shipped concepts' blocks 4 to 6 % smaller, and its
bytes differ from one zlib to another, so that equal concepts would not be equal files.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from orthoplex.concepts.blocks import Block
from orthoplex.errors import ConceptFileError
from orthoplex.files import tensor_bytes

BLOCK_TYPES: Mapping[str, torch.dtype] = {"F16": torch.float16, "F32": torch.float32}
"""Data types of blocks by their names."""
_NUMPY = {"F16": "<f2", "F32": "<f4"}


def encode_block(parts: Mapping[str, Tensor]) -> Block:
    """Write tensors of one type, float16 or float32, as a block."""
    kind = next(name for name, dtype in BLOCK_TYPES.items() if dtype == next(iter(parts.values())).dtype)
    data = b"".join(bytes(tensor_bytes(tensor)) for _, tensor in sorted(parts.items()))
    shapes = {part: tuple(tensor.shape) for part, tensor in sorted(parts.items())}
    return Block(kind, shapes, base64.b64encode(data).decode("ascii"))


def described(parts: Mapping[str, Tensor]) -> Block:
    """Describe tensors that lie in a file beside."""
    whole = encode_block(parts)
    return Block(whole.type, whole.shapes)


def decode_block(block: Block, name: str) -> dict[str, Tensor]:
    """Read a block's tensors from its text.

    Args:
        block: The block.
        name: Its name, for errors.

    Raises:
        ConceptFileError: If the text is not base64 of just these numbers, or the type is none of a block.
    """
    if block.type not in BLOCK_TYPES:
        raise ConceptFileError(f"block '{name}' has data type '{block.type}', allowed are {', '.join(BLOCK_TYPES)}")
    try:
        data = base64.b64decode(block.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConceptFileError(f"block '{name}' is not base64: {error}") from error
    counts = {part: math.prod(shape) for part, shape in sorted(block.shapes.items())}
    announced = sum(counts.values()) * BLOCK_TYPES[block.type].itemsize
    if len(data) != announced:
        raise ConceptFileError(f"block '{name}' holds {len(data)} bytes, its shapes take {announced}")
    numbers = torch.from_numpy(np.frombuffer(data, _NUMPY[block.type]).copy())
    parts = numbers.split(list(counts.values())) if counts else ()
    return {part: values.view(block.shapes[part]) for part, values in zip(counts, parts, strict=True)}
