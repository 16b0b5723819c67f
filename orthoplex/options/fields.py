"""Options are the fields of frozen dataclasses; each field owns its default and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from functools import cache
from typing import Any, cast, get_type_hints

from orthoplex.options.values import UNLIMITED, Limits, checked

_LIMITS = "limits"


def option(
    default: Any,  # noqa: ANN401 (any value of the field's type)
    *,
    lowest: float | None = None,
    highest: float | None = None,
    above: float | None = None,
    below: float | None = None,
    filled: bool = False,
) -> Any:  # noqa: ANN401 (a field has the type of its values)
    """Return a dataclass field with a default and limits; ``check_fields`` holds its values against them.

    Args:
        default: The default.
        lowest: See ``Limits``.
        highest: See ``Limits``.
        above: See ``Limits``.
        below: See ``Limits``.
        filled: See ``Limits``.
    """
    return field(default=default, metadata=limited(Limits(lowest, highest, above, below, filled)))


def limited(limits: Limits) -> Mapping[str, Limits]:
    """Return the metadata of a dataclass field with limits and no default."""
    return {_LIMITS: limits}


def check_fields(instance: Any, what: str = "") -> None:  # noqa: ANN401 (any dataclass)
    """Convert and check every field of a frozen dataclass by its annotation and its limits (see ``checked``).

    Args:
        instance: The dataclass, as its ``__post_init__`` has it.
        what: The words before a field's name in an error.

    Raises:
        ConfigurationError: For the first field whose value is not allowed.
    """
    hints = _hints(cast(type[Any], type(instance)))
    for item in fields(instance):
        limits = item.metadata.get(_LIMITS, UNLIMITED)
        value = checked(f"{what} {item.name}".strip(), getattr(instance, item.name), hints[item.name], limits)
        object.__setattr__(instance, item.name, value)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)
