"""Values of options: read from text, converted to what an annotation asks for, checked, and described for errors."""

from __future__ import annotations

import numbers
import sys
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from orthoplex.errors import ConfigurationError

REFUSED: Final = object()
"""Stands for a value that an annotation or a limit does not allow."""


@dataclass(frozen=True)
class Limits:
    """Limits of the numbers and texts that an annotation allows.

    Attributes:
        lowest: The lowest number.
        highest: The highest number.
        above: All numbers are above this one.
        below: All numbers are below this one.
        filled: True refuses blank texts.
    """

    lowest: float | None = None
    highest: float | None = None
    above: float | None = None
    below: float | None = None
    filled: bool = False

    def hold(self, number: float) -> bool:
        """Return True if a number is inside."""
        return (
            (self.lowest is None or number >= self.lowest)
            and (self.highest is None or number <= self.highest)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def words(self) -> str:
        """Describe the range, as after "numbers"; empty without one."""
        start = "" if self.lowest is None else f"from {_shown(self.lowest)}"
        start = start if self.above is None else f"above {_shown(self.above)}"
        end = "" if self.highest is None else f"to {_shown(self.highest)}"
        end = end if self.below is None else f"below {_shown(self.below)}"
        if start.startswith("from") and end.startswith("to"):
            return f" {start} {end}"
        return "".join(f" {part}" for part in [", ".join(filter(None, (start, end.replace("to ", "up to "))))] if part)


def _shown(number: float) -> str:
    """Return a limit in short form: 2^62 instead of all its digits."""
    bits = abs(int(number)).bit_length()
    if bits > 32 and abs(number) == 2 ** (bits - 1):
        return f"{'-' if number < 0 else ''}2^{bits - 1}"
    if bits > 32 and number == 2**bits - 1:
        return f"2^{bits} - 1"
    return str(int(number) if number == int(number) else number)


UNLIMITED: Final = Limits()
FILLED: Final = Limits(filled=True)


def parse(text: str) -> object:
    """Read a value as TOML; ``none`` is None, and text that is no TOML stands for itself."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, too deep, or a number of too many digits
        return text


def checked(what: str, value: object, annotation: Any, limits: Limits = UNLIMITED) -> Any:  # noqa: ANN401 (annotations)
    """Return a value as its annotation has it: a whole number as a float, a list as a tuple.

    Args:
        what: The name of the value, for errors.
        value: The value.
        annotation: ``int``, ``float``, ``bool``, ``str``, None, ``Any``, another class, or a ``Literal``, union, tuple
            of any length or mapping of texts to these.
        limits: The limits of its numbers and texts.

    Raises:
        ConfigurationError: If the value is not allowed; the message has its name, the value and all allowed values.
    """
    converted = convert(value, annotation, limits)
    if converted is REFUSED:
        raise ConfigurationError(f"{what} is {value!r}; allowed are {describe(annotation, limits)}")
    return converted


def convert(value: object, annotation: Any, limits: Limits = UNLIMITED) -> object:  # noqa: ANN401 (annotations)
    """Return a value as its annotation has it, or ``REFUSED``; see ``checked``."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        if int in parts and float in parts:  # a number that stays as written, and that a float can hold
            parts = tuple(part for part in parts if part is not int or convert(value, float, limits) is not REFUSED)
        results = (convert(value, part, limits) for part in parts)
        return next((result for result in results if result is not REFUSED), REFUSED)
    if origin is Literal:
        value = "none" if value is None else value  # as entries have it
        return value if value in parts else REFUSED
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return REFUSED
        items = tuple(convert(item, parts[0], limits) for item in cast("list[object]", value))
        return REFUSED if REFUSED in items else items
    if origin is Mapping:
        if not isinstance(value, Mapping):
            return REFUSED
        table = {key: convert(item, parts[1], limits) for key, item in cast("Mapping[str, object]", value).items()}
        return REFUSED if REFUSED in table.values() else table
    if annotation in (int, float):
        return _number(value, annotation, limits)
    if annotation is str:
        return value if isinstance(value, str) and (value.strip() or not limits.filled) else REFUSED
    return value if isinstance(value, annotation) else REFUSED


def _number(value: object, kind: type[int] | type[float], limits: Limits) -> object:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if kind is int else numbers.Real):
        return REFUSED
    if kind is float and not abs(cast(float, value)) <= sys.float_info.max:
        return REFUSED
    number = kind(cast(float, value))
    return number if limits.hold(number) else REFUSED


def describe(annotation: Any, limits: Limits = UNLIMITED) -> str:  # noqa: ANN401 (annotations)
    """Describe in the plural which values an annotation allows."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        shown = [part for part in parts if part is not int or float not in parts]  # numbers that stay as written
        return ", or ".join(describe(part, limits) for part in shown)
    if origin is Literal:
        return ", ".join(repr(value) for value in parts)
    if origin is tuple:
        return f"lists of {describe(parts[0], limits)}"
    if origin is Mapping:
        return "tables" if parts[1] is Any else f"tables of {describe(parts[1], limits)}"
    words = {
        int: f"whole numbers{limits.words()}",
        float: f"finite numbers{limits.words()}",
        str: "texts that are not blank" if limits.filled else "texts",
        bool: "true, false",
        type(None): "none",
    }
    return words[annotation] if annotation in words else f"values of type {annotation.__name__}"
