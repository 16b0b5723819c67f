"""Texts of errors: any error in one line, and the errors that say that memory is short."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

_LONGEST_LINE = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")
"""Words of libraries whose errors have no kind of their own for it."""


def one_line(text: str) -> str:
    """Return a text of several lines as one, without the colours of a terminal."""
    return " ".join(filter(None, (line.strip() for line in _COLOUR.sub("", text).splitlines())))


def summary_of(error: BaseException) -> str:
    """Return an error in one line: its kind and its message, whatever the message is; a group names its first error."""
    kind = type(error).__name__
    try:
        text = one_line(str(error))
    except Exception:  # an error whose own text fails is shown by its kind
        return f"{kind} (its message cannot be shown)"
    inner = _members(error)
    text = f"{text}: {summary_of(inner[0])}" if inner else text
    line = f"{kind}: {text}" if text else kind
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def _members(error: BaseException) -> Sequence[BaseException]:
    """Return the errors of a group; none for any other error."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()


def lacks_memory(error: BaseException) -> bool:
    """Return True if an error, or one that it came from, says that there was too little memory."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(each).__mro__):
            return True
        if isinstance(each, RuntimeError) and any(words in summary_of(each) for words in _NO_MEMORY):
            return True
        waiting += [each.__cause__, each.__context__]
        waiting += _members(each)
    return False
