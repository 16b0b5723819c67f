"""Single numbers of a file, such as alpha, read without torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from orthoplex.errors import FileFormatError
from orthoplex.files import Header

_CODES = {
    **{"F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i", "I16": "h", "I8": "b"},
    **{"U64": "Q", "U32": "I", "U16": "H", "U8": "B"},
}
"""Data type in a header -> its code in ``struct``."""


def read_numbers(path: Path, header: Header, keys: Iterable[str]) -> dict[str, float]:
    """Return the values of tensors of one number; those of other sizes or types are left out.

    Args:
        path: The file.
        header: Its header.
        keys: The tensors' names.

    Raises:
        FileFormatError: If the file cannot be read, or was replaced.
    """
    numbers: dict[str, float] = {}
    try:
        with path.open("rb") as file:
            header.check_unchanged(path, file.fileno())
            for key in sorted(keys, key=lambda key: header.entries[key].start):
                entry = header.entries[key]
                if math.prod(entry.shape) == 1 and entry.dtype in {*_CODES, *_OTHERS}:
                    file.seek(header.data_start + entry.start)
                    numbers[key] = _number(file.read(entry.end - entry.start), entry.dtype)
    except (OSError, struct.error) as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
    return numbers


def _number(content: bytes, dtype: str) -> float:
    if dtype in _OTHERS:
        return _OTHERS[dtype](content)
    return float(struct.unpack(f"<{_CODES[dtype]}", content)[0])


def _four_bits(content: bytes) -> float:
    """The value of a float of four bits of exponent and three of fraction, without infinities."""
    sign, exponent, fraction = content[0] >> 7, content[0] >> 3 & 15, content[0] & 7
    if (exponent, fraction) == (15, 7):
        return math.nan
    size = (8 + fraction) * 2.0 ** (exponent - 10) if exponent else fraction * 2.0**-9
    return -size if sign else size


_OTHERS: dict[str, Callable[[bytes], float]] = {
    "BF16": lambda content: struct.unpack("<f", b"\0\0" + content)[0],
    "F8_E5M2": lambda content: struct.unpack("<e", b"\0" + content)[0],
    "F8_E4M3": _four_bits,
}
"""Data types that ``struct`` does not have."""
