"""Several problems: all of them are collected, the first is the message."""

import pytest

from orthoplex.errors import BaseModelError
from orthoplex.models.problems import ProblemsError, all_done, first_of, prefixed, problems_of


def failing(error):
    def fail():
        raise error

    return fail


def test_all_calls_are_made_and_all_problems_are_collected():
    done = []
    calls = {
        "a": failing(BaseModelError("one")),
        "b": lambda: done.append("b"),
        "c": failing(KeyError("two\nlines")),
        "d": failing(ProblemsError(["three", "four"])),
    }
    with pytest.raises(BaseModelError, match="^one$") as caught:
        all_done(calls)
    assert problems_of(caught.value) == ("one", "KeyError: 'two\\nlines'", "three", "four") and done == ["b"]
    assert all_done({"x": lambda: 1, "y": lambda: 2}) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BaseModelError("one"), ("base: one",)),
        (ProblemsError(["one", "two"]), ("base: one", "base: two")),
        (ValueError("odd\nthing"), ("base: ValueError: odd thing",)),
    ],
)
def test_every_line_has_the_prefix(error, expected):
    with pytest.raises(ProblemsError) as caught, prefixed("base: "):
        raise error
    assert caught.value.problems == expected and caught.value.__cause__ is error


def test_three_of_many_names_are_shown():
    assert first_of(["a"]) == "a" and first_of(["a", "b", "c"]) == "a, b, c"
    assert first_of(["a", "b", "c", "d"]) == "a, b, c, …" and first_of([]) == ""
