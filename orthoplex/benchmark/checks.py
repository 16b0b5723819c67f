"""What values an experiment may hold, written as one rule for each key."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from orthoplex.errors import ConfigurationError


@final
@dataclass(frozen=True)
class Rule:
    """Which values are allowed.

    Attributes:
        allowed: They in words, in the plural, as an error says them.
        holds: Whether a value is one of them.
    """

    allowed: str
    holds: Callable[[object], bool]


TEXT = Rule("texts", lambda value: isinstance(value, str))
FILLED_TEXT = Rule("texts that are not blank", lambda value: isinstance(value, str) and bool(value.strip()))
TRUTH = Rule("true, false", lambda value: isinstance(value, bool))
TABLE = Rule("tables", lambda value: isinstance(value, Mapping))


def whole_numbers(lowest: int, highest: int | None = None) -> Rule:
    """Whole numbers from `lowest` to `highest`, both included; true and false are none."""
    words = f"whole numbers from {lowest}" + ("" if highest is None else f" to {highest}")
    return Rule(words, lambda value: type(value) is int and lowest <= value <= (value if highest is None else highest))


def finite_numbers(lowest: float | None = None) -> Rule:
    """Numbers, whole or not, from `lowest`, that a float can hold."""
    words = "finite numbers" + ("" if lowest is None else f" from {lowest}")
    largest = sys.float_info.max
    start = -largest if lowest is None else lowest

    def holds(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and start <= value <= largest

    return Rule(words, holds)


def one_of(values: Sequence[str]) -> Rule:
    """One of these texts."""
    return Rule(", ".join(map(repr, values)), lambda value: value in values)


def list_of(rule: Rule) -> Rule:
    """Lists in which every entry keeps a rule."""
    return Rule(
        f"lists of {rule.allowed}", lambda value: isinstance(value, list | tuple) and all(map(rule.holds, value))
    )


def table_of(rule: Rule) -> Rule:
    """Tables in which every value keeps a rule."""
    return Rule(
        f"tables of {rule.allowed}", lambda value: isinstance(value, Mapping) and all(map(rule.holds, value.values()))
    )


def check(what: str, value: object, rule: Rule) -> None:
    """Refuse a value that breaks a rule.

    Raises:
        ConfigurationError: when it does; names what it is, the value and the rule.
    """
    if not rule.holds(value):
        raise ConfigurationError(f"{what} is {value!r}; allowed: {rule.allowed}")


def check_fields(table: object, rules: Mapping[str, Rule], what: str = "") -> None:
    """Check attributes of an object, each by its rule.

    Args:
        table: The object.
        rules: Attribute -> its rule.
        what: What comes before the attribute's name in an error.

    Raises:
        ConfigurationError: for the first attribute that breaks its rule.
    """
    for name, rule in rules.items():
        check(f"{what} {name}".strip(), getattr(table, name), rule)
