"""Options: the fields of frozen dataclasses, read from TOML, ``key=value`` and JSON, and checked; without torch."""

from orthoplex.options.names import AUTO, ENCODERS, METHOD_NAMES, MOBILENET, Basis, Precision
from orthoplex.options.values import REFUSED, convert, describe, parse, read_entries

__all__ = [
    "AUTO",
    "ENCODERS",
    "METHOD_NAMES",
    "MOBILENET",
    "REFUSED",
    "Basis",
    "Precision",
    "convert",
    "describe",
    "parse",
    "read_entries",
]
