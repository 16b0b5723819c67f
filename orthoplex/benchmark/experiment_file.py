"""Experiment files: options in the file that an experiment names as `common` are read with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orthoplex.errors import ConfigurationError
from orthoplex.options import FILLED, checked, read_toml

_TABLE = Mapping[str, Any]
_PATHS = {"concepts": "folder", "collections": "index"}


def read_tables(path: Path) -> dict[str, Any]:
    """The keys and values of an experiment, what it takes from elsewhere put in.

    `common = "FILE"` (a path from the file's folder) gives every key that the file lacks, and of tables every entry
    that the file's table lacks; paths in it are relative to it. `[methods]` names training options: a variant's
    `training = "NAME"` takes them, `training = { like = "NAME", … }` with changes.

    Raises:
        ConfigurationError: When a file cannot be read, files name one another in a circle, a method is not there, or
            one is said twice.
    """
    values = _with_common(path, [])
    methods = values.pop("methods", {})
    checked("methods", methods, _TABLE)
    for name, training in methods.items():
        checked(f"method {name!r}", training, _TABLE)
        if "like" in training:
            raise ConfigurationError(f"method {name!r} is like another; allowed are training options alone")
    if isinstance(values.get("variants"), list):
        values["variants"] = [_resolved(row, methods) for row in values["variants"]]
    return values


def _with_common(path: Path, readers: Sequence[Path]) -> dict[str, Any]:
    try:
        place = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # links in a circle
        raise ConfigurationError(f"{path.name} cannot be read: {error}") from error
    values = read_toml(path)
    if place in readers:
        raise ConfigurationError(f"{readers[-1].name}: common is {path}, which is being read; allowed is another file")
    if "common" not in values:
        return values
    checked(f"{path.name}: common", values["common"], str, FILLED)
    file = path.parent / values.pop("common")
    shared = _anchored(_with_common(file, [*readers, place]), file.parent)
    for name in shared.get("methods", {}).keys() & values.get("methods", {}).keys():
        raise ConfigurationError(f"{path.name}: method {name!r} is one of {file.name}; allowed is another name")
    return shared | {key: _on_top(shared.get(key), value) for key, value in values.items()}


def _anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with paths that do not depend on the file that is read; what is no path is left to be refused."""
    for table, key in _PATHS.items():
        rows = values.get(table)
        if isinstance(rows, list):
            values[table] = [
                {**row, key: str((folder / row[key]).absolute())}
                if isinstance(row, Mapping) and isinstance(row.get(key), str) and row[key].strip()
                else row
                for row in rows
            ]
    return values


def _on_top(shared: object, own: object) -> object:
    return {**shared, **own} if isinstance(shared, Mapping) and isinstance(own, Mapping) else own


def _resolved(row: object, methods: Mapping[str, Mapping[str, Any]]) -> object:
    """A variant with all its training options; one that is none is left to be refused."""
    if not isinstance(row, Mapping):
        return row
    training = row.get("training")
    if isinstance(training, str):
        training = {"like": training}
    if not isinstance(training, Mapping) or "like" not in training:
        return row
    name = training["like"]
    checked(f"variant {row.get('name')!r}: training like", name, str, FILLED)
    if name not in methods:
        known = ", ".join(map(repr, methods)) or "nothing without a table [methods]"
        raise ConfigurationError(f"variant {row.get('name')!r}: training is like {name!r}; allowed: {known}")
    own = {key: value for key, value in training.items() if key != "like"}
    return {**row, "training": {**methods[name], **own}}
