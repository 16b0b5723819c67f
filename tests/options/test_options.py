"""Options: converted by annotation, held against the limits of their field, described, and read from text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from orthoplex.errors import ConfigurationError
from orthoplex.options import (
    FILLED,
    Limits,
    check_field_names,
    check_fields,
    check_keys,
    checked,
    did_you_mean,
    limited,
    option,
    read_entries,
    read_toml,
)


@dataclass(frozen=True)
class Options:
    name: str = field(metadata=limited(FILLED))
    steps: int = option(3, lowest=1)
    share: float | None = option(None, above=0, highest=1)
    words: tuple[str, ...] = ()

    def __post_init__(self):
        check_fields(self, "options")


def test_values_are_converted():
    options = Options("a", np.int64(2), 1, ["x"])  # type: ignore[arg-type]
    assert (options.steps, options.share, options.words) == (2, 1.0, ("x",))
    assert type(options.steps) is int and type(options.share) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": " "}, "options name is ' '; allowed are texts that are not blank$"),
        ({"steps": 0}, "options steps is 0; allowed are whole numbers from 1$"),
        ({"steps": True}, "options steps is True; allowed are whole"),
        ({"share": 0}, "options share is 0; allowed are finite numbers above 0, up to 1, or none$"),
        ({"share": float("nan")}, "options share is nan"),
        ({"share": 10**400}, "options share is 10+; allowed are finite"),
        ({"words": [1]}, r"options words is \[1\]; allowed are lists of texts$"),
    ],
)
def test_what_is_not_allowed_is_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        Options(**{"name": "a", **values})


@pytest.mark.parametrize(
    ("annotation", "limits", "words"),
    [
        (int, Limits(lowest=0, highest=2**63 - 1), r"whole numbers from 0 to 2\^63 - 1"),
        (int, Limits(lowest=-(2**62), highest=2**62), r"whole numbers from -2\^62 to 2\^62"),
        (float, Limits(lowest=0, below=1), "finite numbers from 0, below 1"),
        (float, Limits(highest=0.5), "finite numbers up to 0.5"),
        (int | float, Limits(), "finite numbers"),
        (int | Literal["auto"], Limits(), "whole numbers, or 'auto'"),
        (bool, Limits(), "true, false"),
        (Mapping[str, Any], Limits(), "tables"),
        (Mapping[str, tuple[int, ...]], Limits(), "tables of lists of whole numbers"),
        (Options, Limits(), "values of type Options"),
    ],
)
def test_annotations_are_described(annotation, limits, words):
    with pytest.raises(ConfigurationError, match=f"it is b'x'; allowed are {words}$"):
        checked("it", b"x", annotation, limits)


def test_tables_and_numbers_that_stay_as_written():
    assert checked("it", {"a": [1]}, Mapping[str, tuple[float, ...]]) == {"a": (1.0,)}
    assert type(checked("it", 4, int | float)) is int and checked("it", None, Literal["none"]) == "none"


def test_unknown_and_missing_names_are_refused():
    with pytest.raises(ConfigurationError, match="training has no option 'stpes'; did you mean 'steps'?"):
        check_field_names(["name", "stpes"], Options, "training")
    with pytest.raises(ConfigurationError, match="a table lacks the option 'name'; allowed are all of name$"):
        check_field_names(["steps"], Options, "a table")
    check_keys(["a"], ["a", "b"], "it")
    assert did_you_mean("a", []) == "it has none"


def test_entries_and_files(tmp_path):
    assert read_entries(["a=1", "a = none", "b=x y"], ["a", "b"], "it") == {"a": None, "b": "x y"}
    with pytest.raises(ConfigurationError, match="override 'a' has no '='; allowed is key=value"):
        read_entries(["a"], ["a"], "it")
    (tmp_path / "a.toml").write_text("\ufeffa = 1\n", encoding="utf-8")
    assert read_toml(tmp_path / "a.toml") == {"a": 1}
    (tmp_path / "a.toml").write_text("a = ")
    with pytest.raises(ConfigurationError, match=r"a.toml cannot be read: "):
        read_toml(tmp_path / "a.toml")
