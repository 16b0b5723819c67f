"""The ledger of a bank: facts, one a line, that are appended and never changed.

Each line is a checksum and a JSON object. It is on the disk before anybody is told. A writer that is killed leaves at
most the beginning of a line at the end: readers leave it out, and the next writer cuts it off. Writers take turns by a
lock of the operating system, which ends with its process.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout

from orthoplex.errors import BusyError, FileFormatError, OutputError

_NAME, _LOCK = "ledger.jsonl", "ledger.lock"
_PATIENCE_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 0.005
Fact = dict[str, Any]


class LedgerReplacedError(FileFormatError):
    """The file is another one than was read before: a bank that was made anew, or restored from a copy."""


@final
@dataclass(frozen=True)
class Place:
    """A place between two lines.

    Attributes:
        end: Bytes before it.
        line: The line before it; a ledger that has another one there is another ledger.
    """

    end: int = 0
    line: bytes = b""


_BEGINNING = Place()


@final
class Ledger:
    """The ledger in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take a folder; nothing is read yet.

        Args:
            folder: The bank's folder.
        """
        self.path = folder / _NAME
        self._lock_path = folder / _LOCK

    def read(self, start: Place = _BEGINNING) -> tuple[list[Fact], Place]:
        """Return the facts from a place on, and the place behind the last whole one.

        Args:
            start: A place that an earlier call returned.

        Raises:
            LedgerReplacedError: If the ledger is not the one that the place is of.
            FileFormatError: If there is no ledger, or a whole line is damaged.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(start.end - len(start.line))
                before, content = file.read(len(start.line)), file.read()
        except OSError as error:
            raise FileFormatError(
                f"{self.path} cannot be read: {error.strerror}; allowed is the folder of a bank"
            ) from error
        if before != start.line:
            raise LedgerReplacedError(f"{self.path} was replaced by another ledger; allowed is opening the bank again")
        texts: list[bytes] = []
        end, last = start.end, start.line
        for line in content.splitlines(keepends=True):
            text = _text(line)
            if text is None:
                if line.endswith(b"\n") or end + len(line) < start.end + len(content):
                    raise FileFormatError(
                        f"{self.path}: line at byte {end} is damaged; allowed are lines as they were written"
                    )
                break
            texts.append(text)
            end, last = end + len(line), line
        facts = json.loads(b"[%s]" % b",".join(texts))  # one call for all: half the time for thousands
        return facts, Place(end, last)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process and no other thread writes.

        Raises:
            BusyError: If another writes for a minute.
            OutputError: If the folder cannot be written to.
        """
        lock = FileLock(self._lock_path, timeout=_PATIENCE_SECONDS, poll_interval=_SECONDS_BETWEEN_LOOKS)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"{self.path} is written by another process for more than {_PATIENCE_SECONDS:g} s; try again later"
            ) from error
        except OSError as error:
            raise OutputError(
                f"{self._lock_path} cannot be written: {error.strerror}; allowed is a folder of one's own"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def append(self, fact: Mapping[str, Any], end: Place = _BEGINNING) -> None:
        """Write a fact behind all others, onto the disk; within ``locked()``.

        Args:
            fact: The fact.
            end: The place behind the last whole line that the caller knows of; what is behind it is read first.

        Raises:
            LedgerReplacedError: See ``read``.
            OutputError: If it cannot be written; then it is not in the ledger.
        """
        line = _line(fact)
        try:
            is_new = not self.path.exists()
            with self.path.open("ab") as file:
                whole = 0 if is_new else self.read(end)[1].end
                file.truncate(whole)  # the beginning of a line that a killed writer left
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(whole)
                    raise
            if is_new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}") from error


def _line(fact: Mapping[str, Any]) -> bytes:
    text = json.dumps(fact, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _text(line: bytes) -> bytes | None:
    """The JSON of a line; None if the line is not whole."""
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    return text[:-1]


def _sync_folder(folder: Path) -> None:
    """Let a new name in a folder be on the disk, where the system can be asked for it."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
