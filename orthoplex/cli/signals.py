"""Requests to end: Ctrl-C, SIGTERM, and the closing of a terminal; each is one interrupt, however often it comes."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import final

from orthoplex.files.interrupt import INTERRUPTS

SECONDS_OF_ONE_INTERRUPT = 1.0
"""Signals that follow one another as closely are one: a second press of the keys, or a program that passes them on."""


@final
class Interrupts:
    """The handler of all requests to end."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the work, unless it was interrupted a moment ago.

        Raises:
            KeyboardInterrupt: Where it was not.
        """
        now = time.monotonic()
        if now - self._last >= SECONDS_OF_ONE_INTERRUPT:
            self._last = now
            raise KeyboardInterrupt


def interrupt_once() -> None:
    """Let requests to end interrupt the work once each; what is ignored, as by ``nohup``, stays ignored."""
    handler = Interrupts()
    for number in INTERRUPTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """Let nothing interrupt the end of the program any more."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
