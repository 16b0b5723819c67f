"""Names of options: an unknown one is refused with the nearest that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from orthoplex.errors import ConfigurationError


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """Return the hint that an error about an unknown name ends with."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"did you mean {nearest[0]!r}?" if nearest else "it has none"


def check_keys(keys: Iterable[str], known: Sequence[str], what: str, *, required: Sequence[str] = ()) -> None:
    """Refuse names that are no options, and required ones that are missing.

    Args:
        keys: The names given.
        known: The names that exist.
        what: The owner of the options, for errors.
        required: The names that must be given.

    Raises:
        ConfigurationError: For the first such name; suggests the nearest one that exists.
    """
    given = list(keys)
    for key in given:
        if key not in known:
            raise ConfigurationError(f"{what} has no option {key!r}; {did_you_mean(key, known)}")
    for key in required:
        if key not in given:
            raise ConfigurationError(f"{what} lacks the option {key!r}; allowed are all of {', '.join(required)}")


def check_field_names(keys: Iterable[str], kind: Any, what: str) -> None:  # noqa: ANN401 (any dataclass)
    """Refuse keys that are no fields of a dataclass, and missing fields that have no default; see ``check_keys``."""
    items = fields(kind)
    required = [item.name for item in items if item.default is MISSING and item.default_factory is MISSING]
    check_keys(keys, [item.name for item in items], what, required=required)
