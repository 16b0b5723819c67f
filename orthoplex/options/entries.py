"""Options from text: ``key=value`` entries and TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from orthoplex.errors import ConfigurationError
from orthoplex.options.keys import check_keys
from orthoplex.options.values import parse


def read_entries(entries: Sequence[str], known: Sequence[str], what: str) -> dict[str, Any]:
    """Read ``key=value`` entries as plain values; the last of one key counts.

    Args:
        entries: The entries; values are read as TOML, bare words as text.
        known: The keys that exist.
        what: The owner of the options, for errors.

    Raises:
        ConfigurationError: For an entry without ``=``, or an unknown key (names the nearest).
    """
    changes: dict[str, Any] = {}
    for entry in entries:
        key, separator, text = entry.partition("=")
        key = key.strip()
        if not separator:
            raise ConfigurationError(f"override {entry!r} has no '='; allowed is key=value")
        check_keys([key], known, what)
        changes[key] = parse(text.strip())
    return changes


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file (UTF-8, with or without a byte order mark).

    Raises:
        ConfigurationError: When it cannot be read, or is no TOML; names the file.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def read_flat_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file whose options all stand at the top level.

    Raises:
        ConfigurationError: See ``read_toml``; or for a table, with the first option in it.
    """
    values = read_toml(path)
    for key, value in values.items():
        tables = cast("list[object]", value if isinstance(value, list) else [value])
        if tables and isinstance(tables[0], dict):
            inside = next(iter(cast("dict[str, Any]", tables[0])), "key")
            raise ConfigurationError(
                f"[{key}] is a table; the options stand at the top level, without one: {inside} = … and no [{key}]"
            )
    return values
