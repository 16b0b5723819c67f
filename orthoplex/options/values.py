"""Values of options: read from text, converted to what an annotation asks for, and described for errors."""

import sys
import tomllib
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from orthoplex.errors import ConfigurationError

REFUSED = object()
"""What stands for a value that an annotation does not allow."""


def parse(text: str) -> object:
    """Read a value as TOML; ``none`` is None, and what is no TOML is a text."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, too deep, or a number of too many digits
        return text


def convert(value: object, annotation: Any) -> object:  # noqa: ANN401  (a type annotation has no narrower type)
    """Return the value as the annotation has it (int to float, list to tuple), or ``REFUSED``."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        results = (convert(value, part) for part in get_args(annotation))
        return next((result for result in results if result is not REFUSED), REFUSED)
    if origin is Literal:
        value = "none" if value is None else value  # as entries have it
        return value if value in get_args(annotation) else REFUSED
    if origin is tuple:
        is_texts = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        return tuple(value) if is_texts and isinstance(value, list | tuple) else REFUSED
    if annotation is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return float(value) if is_number and isinstance(value, int | float) else REFUSED
    return value if type(value) is annotation else REFUSED


def describe(annotation: Any) -> str:  # noqa: ANN401  (a type annotation has no narrower type)
    """Say in words which values an annotation allows."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in get_args(annotation))
    if origin is Literal:
        return ", ".join(repr(value) for value in get_args(annotation))
    if origin is tuple:
        return "a list of texts"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "none"}
    return names[annotation]


def read_entries(entries: Sequence[str], *, check_key: Callable[[str], None]) -> dict[str, Any]:
    """Read ``key=value`` entries as plain values; the last of one key counts.

    Args:
        entries: The entries.
        check_key: Refuses a key that is no option.

    Raises:
        ConfigurationError: For an entry without ``=``.
    """
    changes: dict[str, Any] = {}
    for entry in entries:
        key, separator, text = entry.partition("=")
        key = key.strip()
        if not separator:
            raise ConfigurationError(f"override {entry!r} has no '='; allowed is key=value")
        check_key(key)
        changes[key] = parse(text.strip())
    return changes
