"""Checks of JSON values against type annotations."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Union, cast, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Misfit:
    """The first value that is not allowed.

    Attributes:
        path: Its place: keys, joined by dots.
        problem: The reason, as an error says it.
    """

    path: str
    problem: str


def misfit(value: object, annotation: Any, path: str) -> Misfit | None:  # noqa: ANN401  (a type annotation)
    """Return the first value inside a JSON value that an annotation does not allow, or None.

    Args:
        value: The JSON value.
        annotation: A plain type, an optional one, ``Mapping[str, …]`` or ``dict[str, …]``, ``list[str]``,
            ``tuple[int, int, int]`` for three positive sizes, ``tuple[int, ...]`` for any number of them,
            ``tuple[str, ...]`` for any number of texts, or a dataclass for an object with just its fields.
        path: The name of the value in errors.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return None if value is None else misfit(value, parts[0], path)
    if origin in (dict, Mapping):
        return _wrong_type(value, dict, path) or _first(
            misfit(item, parts[1], f"{path}.{key}") for key, item in _items(value)
        )
    if origin is list:
        items = cast("list[object]", value) if isinstance(value, list) else []
        if items and all(item and misfit(item, parts[0], path) is None for item in items):
            return None
        return Misfit(path, f"is {value!r}, allowed is a list of at least one text")
    if origin is tuple and Ellipsis in parts:
        items = cast("list[object]", value) if isinstance(value, list) else [None]
        if all(type(item) is parts[0] and (parts[0] is not int or cast(int, item) > 0) for item in items):
            return None
        return Misfit(path, f"is {value!r}, allowed is a list of {'texts' if parts[0] is str else 'positive integers'}")
    if origin is tuple:
        items = cast("list[object]", value) if isinstance(value, list) else []
        if len(items) == len(parts) and all(type(item) is int and item > 0 for item in items):
            return None
        return Misfit(path, f"is {value!r}, allowed are {len(parts)} positive integers")
    if is_dataclass(annotation):
        hints = get_type_hints(annotation)
        known = [item.name for item in fields(annotation)]
        return (
            _wrong_type(value, dict, path)
            or wrong_keys(dict(_items(value)), known, f"{path}.")
            or _first(misfit(item, hints[key], f"{path}.{key}") for key, item in _items(value))
        )
    return None if annotation is Any else _wrong_type(value, annotation, path)


def wrong_keys(values: Mapping[str, Any], known: list[str], prefix: str = "") -> Misfit | None:
    """Return the first key, in order, that is missing, or else that is unknown."""
    for key in sorted(known):
        if key not in values:
            return Misfit(f"{prefix}{key}", "is missing")
    for key in sorted(values):
        if key not in known:
            return Misfit(f"{prefix}{key}", f"is unknown, allowed are {', '.join(sorted(known))}")
    return None


def _wrong_type(value: object, expected: type, path: str) -> Misfit | None:
    if type(value) is expected:
        return None
    return Misfit(path, f"is {value!r}, allowed is a value of type {expected.__name__}")


def _items(value: object) -> list[tuple[str, Any]]:
    return list(cast("dict[str, Any]", value).items()) if isinstance(value, dict) else []


def _first(misfits: Any) -> Misfit | None:  # noqa: ANN401  (a generator)
    return next((item for item in misfits if item is not None), None)
