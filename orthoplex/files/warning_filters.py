"""Silence for the warnings of libraries, which Python keeps in one place for all threads."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

_LOCK = Lock()
_filters: list[warnings.catch_warnings[None]] = []
_num_inside = 0
"""The filters before the first thread entered, and how many threads are inside."""


@contextmanager
def without_warnings() -> Generator[None]:
    """Inside, no warning is shown, as those of libraries about one another; threads may be inside together.

    The first thread that enters saves the filters; the last that leaves puts them back.
    """
    global _num_inside
    with _LOCK:
        if _num_inside == 0:
            _filters.append(warnings.catch_warnings())
            _filters[0].__enter__()
            warnings.simplefilter("ignore")
        _num_inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _num_inside -= 1
            if _num_inside == 0:
                _filters.pop().__exit__(None, None, None)
