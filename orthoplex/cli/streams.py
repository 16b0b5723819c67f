"""The one place through which all verbs speak: standard output and standard error that cannot fail.

A console that is closed, full or gone takes nothing from the work: what it refuses is dropped and remembered. Text that
it cannot show is written as escapes.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO, final

from orthoplex.files import one_line

_NARROWEST = 60
"""Columns of a table, however narrow the console says it is."""
_NARROWEST_BELIEVED = 20
"""Columns; a shell that says less, as 0 or 1, has no room for a word, and is not believed."""
_SECONDS_UNTIL_READY = 0.01
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters but the tab and the end of a line, separators of lines, and marks that turn the writing around."""


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def say(text: str) -> None:
    """Write a line to standard output."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Write a line that begins with ``Warning:`` to standard error."""
    note(f"Warning: {one_line(text)}")


def note(text: str) -> None:
    """Write a line to standard error."""
    _write(sys.stderr, text)


def say_json(values: object) -> None:
    """Write JSON to standard output; letters that the console cannot show become JSON's own escapes."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeError, LookupError):
        text = json.dumps(values, indent=2)
    say(_STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def say_table(title: str, rows: Sequence[tuple[str, ...]], heads: Sequence[str] = ()) -> None:
    """Draw a table on standard output; every value is shown whole, on as many lines as it needs.

    Args:
        title: Above the table.
        rows: Rows of equally many values.
        heads: The names of the columns; none for a table without.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    names = heads or [""] * len(rows[0])
    columns = [Column(Text(name), overflow="fold") for name in names]
    table = Table(*columns, title=Text(title), show_header=bool(heads), title_justify="left")
    for row in rows:
        table.add_row(*(Text(_STEERING.sub(_escape, value)) for value in row))
    Console(width=max(Console().width, _NARROWEST)).print(table, overflow="fold", crop=False)


def _write(stream: TextIO, text: str) -> None:
    """Write a text and the end of its line; characters that would steer a terminal are shown as escapes."""
    text = _STEERING.sub(_escape, text)
    stream.write(f"{text}\n")
    stream.flush()


@final
class _Lines(logging.Handler):
    """Shows what the library logs; above a progress bar, where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        write = warn if record.levelno >= logging.WARNING else note
        write(one_line(record.getMessage()))


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Inside, warnings and notes that the library logs are lines on standard error."""
    handler, log = _Lines(logging.INFO), logging.getLogger("orthoplex")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@final
class Outlet(io.RawIOBase):
    """The bytes of a standard stream on their way out; the first refusal is remembered and ends the writing.

    Attributes:
        failure: The error of the stream; None while it takes everything.
    """

    def __init__(self, inner: io.RawIOBase | io.BufferedIOBase | None, owner: TextIO | None = None) -> None:
        """Write to ``inner``; its owner, which would close it in the end, stays."""
        self._inner, self._owner = inner, owner
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """Return True: whatever the stream does, writing to it is no error."""
        return True

    def fileno(self) -> int:
        """Return the number of the stream.

        Raises:
            OSError: When it has none.
        """
        if self._inner is None:
            raise io.UnsupportedOperation("fileno")
        return self._inner.fileno()

    def isatty(self) -> bool:
        """Return True if the stream is a terminal."""
        return self._inner is not None and not self._inner.closed and self._inner.isatty()

    def write(self, data: object, /) -> int:
        """Write all bytes, or none after a failure; returns their number in both cases."""
        view = memoryview(data).cast("B")  # pyright: ignore[reportArgumentType] - any buffer
        size = len(view)
        while len(view) and self.failure is None:
            try:
                if self._inner is None or self._inner.closed:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                count = self._inner.write(view)
            except OSError as error:
                self.failure = error
            else:
                if count is None:  # a console that is busy and does not let us wait
                    time.sleep(_SECONDS_UNTIL_READY)
                view = view[count or 0 :]
        return size


def open_streams() -> Outlet:
    """Put streams that cannot fail in the place of standard output and standard error; returns the first one's outlet.

    A stream that was closed when the program began gets a place of its own, so that no file opened later takes its
    number and with it what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, lowest in (("COLUMNS", _NARROWEST_BELIEVED), ("LINES", 1)):
        size = os.environ.get(name, "").strip()
        if size and not (size.isascii() and size.isdecimal() and int(size[:9]) >= lowest):
            del os.environ[name]
    output, sys.stdout = _opened(sys.stdout)
    _, sys.stderr = _opened(sys.stderr)
    return output


def _opened(stream: TextIO | None) -> tuple[Outlet, TextIO]:
    """Return the outlet of a standard stream, and a text stream that writes to it."""
    inner, encoding = None, "utf-8"
    if isinstance(stream, io.TextIOWrapper):
        with suppress(OSError):
            stream.flush()
        inner, encoding = stream.buffer, stream.encoding
        inner = inner.raw if isinstance(inner, io.BufferedWriter) else inner
    outlet = Outlet(inner, stream)  # pyright: ignore[reportArgumentType] - what a text wrapper writes to
    text = io.TextIOWrapper(
        io.BufferedWriter(outlet), encoding=encoding, errors="backslashreplace", line_buffering=outlet.isatty()
    )
    return outlet, text
