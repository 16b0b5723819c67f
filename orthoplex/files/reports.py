"""Reports of unforeseen errors: text files in the user's cache folder, for whoever mends the fault."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from orthoplex import __version__
from orthoplex.files.cache import cache_folder

NUM_REPORTS = 20
"""The newest reports stay; older ones are removed."""
_LONGEST_LINE = 300
_PREFIX = "report-"
_PACKAGES = ("torch", "diffusers", "transformers")


def one_line(text: str) -> str:
    """Return a text of several lines as one."""
    return " ".join(filter(None, (line.strip() for line in text.splitlines())))


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


def write_report(error: BaseException, command: Sequence[str]) -> Path | None:
    """Write the report of an error, whole or not at all, and remove reports that are older than the newest twenty.

    It lies in ``cache_folder()/reports``, else in a folder of the user's own among the temporary files. The user's home
    folder is ``~`` in it.

    Args:
        error: The error, with its traceback.
        command: The command line.

    Returns:
        The file; None where no file can be written.
    """
    try:
        text = _report(error, command)
    except Exception as other:  # no error may hide the one that is reported
        text = f"{summary_of(error)}\nThe traceback cannot be shown: {summary_of(other)}\n"
    for place in (
        lambda: cache_folder() / "reports",
        lambda: Path(tempfile.gettempdir()) / f"orthoplex-reports-{getattr(os, 'getuid', int)()}",
    ):
        with suppress(OSError):
            folder = place()
            folder.mkdir(parents=True, exist_ok=True)
            path = _written(folder, text)
            with suppress(OSError):
                _remove_old(folder)
            return path
    return None


def reported(error: BaseException, command: Sequence[str]) -> str:
    """Write the report of an error; returns a line that tells where it lies.

    Args:
        error: The error, with its traceback.
        command: The command line.
    """
    path = write_report(error, command)
    return "No report could be written" if path is None else f"The full report is in {path}"


def _report(error: BaseException, command: Sequence[str]) -> str:
    versions = {"orthoplex": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    lines = [
        f"command: {shlex.join(command)}",
        f"error: {summary_of(error)}",
        f"date: {datetime.now(UTC).isoformat(timespec='seconds')}",
        *(f"{name}: {version}" for name, version in versions.items()),
        f"platform: {platform.platform()}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    return _without_home("\n".join(lines))


def _without_home(text: str) -> str:
    with suppress(RuntimeError, KeyError):  # a user without a home
        home = str(Path.home())
        if len(home) > 1:
            return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return text


def _written(folder: Path, text: str) -> Path:
    """Write a text under a new name that sorts by time; only the user may read it."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    path = folder / f"{_PREFIX}{moment}-{os.getpid()}.txt"
    number, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".partial")
    try:
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _remove_old(folder: Path) -> None:
    for path in sorted(folder.glob(f"{_PREFIX}*.txt"))[:-NUM_REPORTS]:
        path.unlink(missing_ok=True)


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


_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")
"""Words of libraries whose errors have no kind of their own for it."""
