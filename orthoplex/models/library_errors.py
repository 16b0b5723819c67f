"""Errors of the libraries and lists of names, as short as an error of ours can hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
_LIMIT = 300
_NUM_SHOWN = 3


def one_line(error: BaseException) -> str:
    """Return an error's type and message in one line, cut off where it is long.

    Args:
        error: An error that a library raised; its message may have many lines, and colours of a terminal.
    """
    message = " ".join(_CONTROL.sub("", str(error)).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}…"


def first_of(names: Sequence[str]) -> str:
    """Return the first three of some names, and a mark where there are more."""
    return ", ".join(names[:_NUM_SHOWN]) + (", …" if len(names) > _NUM_SHOWN else "")
