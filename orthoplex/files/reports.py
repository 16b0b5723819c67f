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

from orthoplex import __version__
from orthoplex.files.cache import cache_folder
from orthoplex.files.error_text import summary_of

NUM_REPORTS = 20
"""The newest reports stay; older ones are removed."""
_PREFIX = "report-"
_PACKAGES = ("torch", "diffusers", "transformers")


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
