"""Numbers of a concept that no LoRA reader looks for, as the manifest describes them; read without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

TOKENS_BLOCK = "tokens"
"""The vectors of tokens: text encoder to ``(k, …)``, a row for each token."""
INPUTS_BLOCK = "inputs"
"""The inputs of layers: one part of that name, ``(k, in)``."""
IN_HEADER_LIMIT_BYTES = 1024 * 1024
"""Text of numbers in a header; further blocks lie in a file beside. Programs that list files read whole headers."""

COMPANION_PATTERN = re.compile(r"[^/\\\0]+\.[0-9a-f]{12}\.orthoplex")
"""Names of files beside: that of the concept file, and the first digits of the hash."""


@final
@dataclass(frozen=True)
class Block:
    """Numbers of one kind of content.

    Attributes:
        type: Their data type, as a safetensors header names it.
        shapes: Part to shape.
        data: All parts' numbers, one after the other in the order of their names, row by row, little endian, in base64;
            empty if they lie in a file beside.
    """

    type: str
    shapes: Mapping[str, tuple[int, ...]]
    data: str = ""


@final
@dataclass(frozen=True)
class Companion:
    """The file beside a concept file.

    Attributes:
        file: Its name; it lies in the same folder.
        hash: SHA-256 (hex) over its tensors: names, data types, shapes and values.
        blocks: The blocks that lie in it.
        rest: The concept's content hash without these blocks, where the concept is whole without them; else empty.
    """

    file: str
    hash: str
    blocks: tuple[str, ...]
    rest: str = ""


@final
@dataclass(frozen=True)
class StoredTokens:
    """Tokens as a manifest describes them; their numbers lie in blocks.

    Attributes:
        kind: A name in ``TOKENS``.
        names: The tokens, ``<name>``, ``<name>_1``, …, in the order of the rows of the blocks.
        fields: The manifest's fields that the kind has besides, as plain JSON values.
    """

    kind: str = "vector"
    names: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
