"""Requests to end: which signals they are, and how they are held back while something must not break in two."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

INTERRUPTS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""The signals that ask a program to end; Windows has no SIGHUP."""


@contextmanager
def deferred_interrupt() -> Generator[None]:
    """Hold SIGINT (Ctrl-C), SIGTERM and SIGHUP back until the block is left, then let the first of them act.

    Other threads than the main one get none anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    # None is a handler that is not Python's; what is ignored stays ignored
    ours = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in ours:
            signal.signal(number, remember)
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
