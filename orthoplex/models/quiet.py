"""Silence for the libraries that draw progress bars and notices on their own: only the doors of Orthoplex draw."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

_LOCK = Lock()
_OTHERS = ("torchao", "bitsandbytes", "torch.utils._pytree")
"""Loggers of packages that diffusers imports where they are installed, and which then say what this machine lacks."""
_inside = 0
_before = (True, True, 0, 0)
_levels: dict[str, int] = {}
"""How many threads are inside, and the libraries' bars and levels before the first of them entered."""


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, diffusers and transformers draw no bars and log errors only.

    Both libraries keep one setting for all threads. The first thread that enters saves it; the last that leaves puts
    it back.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _before
    with _LOCK:
        if _inside == 0:
            _before = (
                diffusers_logging.is_progress_bar_enabled(),
                transformers_logging.is_progress_bar_enabled(),
                diffusers_logging.get_verbosity(),
                transformers_logging.get_verbosity(),
            )
            for name in _OTHERS:
                _levels[name] = logging.getLogger(name).level
                logging.getLogger(name).setLevel(logging.ERROR)
            diffusers_logging.disable_progress_bar()
            transformers_logging.disable_progress_bar()
            diffusers_logging.set_verbosity_error()
            transformers_logging.set_verbosity_error()
        _inside += 1


def _leave() -> None:
    global _inside
    with _LOCK:
        _inside -= 1
        if _inside > 0:
            return
        has_diffusers_bar, has_transformers_bar, diffusers_level, transformers_level = _before
        for name, level in _levels.items():
            logging.getLogger(name).setLevel(level)
        diffusers_logging.set_verbosity(diffusers_level)
        transformers_logging.set_verbosity(transformers_level)
        if has_diffusers_bar:
            diffusers_logging.enable_progress_bar()
        if has_transformers_bar:
            transformers_logging.enable_progress_bar()
