r"""Numbers that were meant as weights and are none, and such that may be meant as text: ``(cat:1,4)``, ``(at 3:05)``.

Read as they stand, the former would reach the text encoder as letters, and the latter would weigh words.
"""

from __future__ import annotations

import re

from orthoplex.errors import PromptError

HIGHEST_WEIGHT = 5.0
TEXT_BRACKET = r"'\(' for a bracket that is text"
_HIDDEN = re.compile(r"\\(?:\w+|.)|<[^<>\s]*>", re.DOTALL)
"""Letters behind a backslash and tokens of concepts, in which nothing is a bracket."""
_NUMBER = re.compile(
    r"(?<=\S)\s*(?P<colon>[:：])\s*(?P<number>[+-]?(?:[0-9]*[.,][0-9]+|[0-9]+))(?P<rest>[^\s()\[\],:：）】]*)"
)
_BEHIND = re.compile(r"\s*(?P<end>[)）\]】]|$)")
_UNIT = re.compile(r"%|[fx]\b|[.;]")
"""What is typed behind whole numbers that are weights, and not behind those of prose."""
_LONGEST = 40
_EMPTY = re.compile(r"(?<=[^\W\d]):\s*\)")


def check_weights(prompt: str, key: str) -> None:
    """Refuse weights that are not written as weights, and numbers of prose that would be read as weights.

    Args:
        prompt: The prompt of the user.
        key: What the prompt is called in errors.

    Raises:
        PromptError: Names the place, and what to write.
    """
    searched = _HIDDEN.sub(lambda match: "a" * len(match[0]), prompt)  # a letter: `<anna>:1.2` is a weight
    opened = _opened(searched)
    for match in _NUMBER.finditer(searched):
        start = opened[match.start()]
        problem = _problem(searched, match, bracket=searched[start] if start >= 0 else "")
        if problem is not None:
            quoted = " ".join(prompt[max(start, 0) : match.end()].split())
            shown = quoted if len(quoted) <= _LONGEST else f"…{quoted[-_LONGEST:]}"
            raise PromptError(f"{key} holds '{shown}', {problem}, or {TEXT_BRACKET}")
    empty = _EMPTY.search(searched)
    if empty and opened[empty.start()] >= 0:
        raise PromptError(
            f"{key} has no number behind a colon at the end of a bracket; write (words:1.2), or {TEXT_BRACKET}"
        )


def _problem(searched: str, match: re.Match[str], *, bracket: str) -> str | None:
    """What is wrong with a number behind a colon, and what to write; None where it is a weight, or text.

    Args:
        searched: The prompt.
        match: Of ``_NUMBER``.
        bracket: The innermost one that is open there, or nothing.
    """
    number, rest = match["number"], match["rest"]
    behind = _BEHIND.match(searched, match.end())
    end = None if behind is None else behind["end"]
    is_behind_digit = searched[match.start() - 1].isdigit()
    is_decimal = not number.lstrip("+-").isdigit()
    is_number = not rest and "," not in number and match["colon"] == ":"
    value = float(number.replace(",", ".")) / (100 if rest.startswith("%") else 1)
    cure = f"write (words:{value if 0 <= value <= HIGHEST_WEIGHT else 1.2:g})"
    if is_number and bracket == "(" and end == ")":
        is_doubtful = is_behind_digit and not is_decimal and 0 <= value <= HIGHEST_WEIGHT
        return f"which may be a weight or text; write (words:{value:.1f}) for a weight" if is_doubtful else None
    if is_behind_digit and (not is_decimal or end is None):
        return None
    if not (is_decimal or rest or end == ""):
        return None
    if not bracket:
        return f"whose bracket is never opened; {cure}" if is_decimal and end in (")", "）") else None
    if is_number and end is None:
        return f"a weight before the end of its bracket; {cure}"
    if is_number:
        return f"whose bracket is never closed; {cure}"
    return f"whose weight is no number; {cure}" if is_decimal or _UNIT.match(rest) else None


def _opened(text: str) -> list[int]:
    """For each letter, where the innermost bracket around it is opened; -1 where there is none."""
    stack: list[int] = []
    places = []
    for place, letter in enumerate(text):
        places.append(stack[-1] if stack else -1)
        if letter in "([":
            stack.append(place)
        elif letter in ")]" and stack:
            stack.pop()
    return places
