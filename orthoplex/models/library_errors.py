"""Errors of the libraries, as one line that an error of ours can hold."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
_LIMIT = 300


def one_line(error: BaseException) -> str:
    """Return an error's type and message in one line, cut off where it is long.

    Args:
        error: An error that a library raised; its message may have many lines, and colours of a terminal.
    """
    message = " ".join(_CONTROL.sub("", str(error)).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}…"
