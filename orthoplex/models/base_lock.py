"""The lock of a base, which a picture may open between two of its steps for those who wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import final

from orthoplex.errors import ConfigurationError

_SECONDS_BETWEEN_LOOKS = 0.005


class NotBetweenStepsError(Exception):
    """What an action raises that would break the picture being made, before it has changed anything.

    An action of another thread runs again when the lock is given back; one of the thread that draws is refused.
    """


@final
class BaseLock:
    """A re-entrant lock with a queue of short actions, which the holder may run in between, and runs at its end.

    The queue keeps others out: while a picture pauses, its holder runs what waits, and nobody else takes the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._waiting: deque[_Action] = deque()
        self.is_between_steps = False
        """True while actions run in a picture's pause."""

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        try:
            if self._depth == 1:  # whoever waits for the lock itself is in no hurry
                self.run_waiting()
        finally:
            self._depth -= 1
            self._lock.release()

    def run(self, action: Callable[[], None]) -> None:
        """Run an action once: now where the lock is free, else when its holder pauses or gives it back.

        Raises:
            BaseException: What the action raises, in this thread, whoever ran it.
        """
        if self._lock.acquire(blocking=False):
            try:
                with self:
                    action()
            except NotBetweenStepsError as error:
                raise ConfigurationError(f"{error}; allowed is doing so after the picture") from error
            finally:
                self._lock.release()
            return
        waiting = _Action(action)
        self._waiting.append(waiting)
        try:
            self._wait(waiting)
        except BaseException:
            with suppress(ValueError):  # nobody waits for it any more
                self._waiting.remove(waiting)
            raise
        if waiting.error is not None:
            raise waiting.error

    def _wait(self, waiting: _Action) -> None:
        """Wait until an action is done, by whoever has the lock, or by this thread where nobody has it."""
        while not waiting.done.wait(_SECONDS_BETWEEN_LOOKS):
            if self._lock.acquire(blocking=False):
                try:
                    with self:
                        self.run_waiting()
                finally:
                    self._lock.release()

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Inside, a picture pauses; for the holder of the lock."""
        before, self.is_between_steps = self.is_between_steps, True
        try:
            yield
        finally:
            self.is_between_steps = before

    def run_between_steps(self) -> None:
        """Run the actions that wait, up to one that cannot run in a picture's pause; for the holder of the lock."""
        with self.between_steps(), suppress(NotBetweenStepsError):
            self.run_waiting()

    def run_waiting(self) -> None:
        """Run every action that waits; for the holder of the lock, where a change does no harm.

        Raises:
            BaseException: What interrupts this thread meanwhile, such as Ctrl-C.
        """
        while True:
            try:
                waiting = self._waiting.popleft()
            except IndexError:
                return
            try:
                waiting.run()
            except NotBetweenStepsError:
                self._waiting.appendleft(waiting)
                raise


@final
class _Action:
    """An action of another thread, and how it ended."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run it, and wake up the thread that waits; what interrupts this thread, such as Ctrl-C, it raises too."""
        try:
            self._action()
        except NotBetweenStepsError:
            raise
        except Exception as error:  # noqa: BLE001  (it belongs to the thread that waits)
            self.error = error
        except BaseException as error:
            self.error = RuntimeError(f"the change was interrupted by {type(error).__name__} in another thread")
            self.done.set()
            raise
        self.done.set()
