"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from orthoplex.errors import OutputError

_FORSAKEN_SECONDS = 3600
"""Age from which a partial file that names no process is a leftover."""


@contextmanager
def written_atomically(path: Path, *, overwrite: bool = True) -> Generator[Path, None, None]:
    """Yield a temporary name beside ``path``; leaving without an error renames it to ``path``.

    After an error the temporary file is removed and an older file at ``path`` is untouched. What a killed process left
    of its writing to ``path`` is removed when a later one succeeds.
    Missing parent folders are made.

    Args:
        path: The file.
        overwrite: Replace an older file; else one that is there on leaving, as of another process, is refused.

    Raises:
        OutputError: When the file cannot be written, or is there and ``overwrite`` is False.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if overwrite:
                os.replace(temporary, path)
            else:
                _put_once(temporary, path)
            for leftover in leftovers(path):
                leftover.unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def _put_once(temporary: Path, path: Path) -> None:
    """Give a whole file its name, of two processes to the first alone.

    Raises:
        OutputError: If there is a file of that name.
    """
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: the name is taken first
            path.open("xb").close()
            os.replace(temporary, path)
    except FileExistsError as error:
        raise OutputError(f"{path} is there by now, of another command; give another name, or overwrite it") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) whole or not at all.

    Raises:
        OutputError: When it cannot be written.
    """
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: object, *, sort: bool = False, indent: int = 1, finite: bool = True) -> None:
    """Write plain values as a JSON file (UTF-8), whole or not at all.

    Args:
        path: The file.
        values: Values that JSON has.
        sort: Order the keys of every object; else they keep their order.
        indent: Spaces a level.
        finite: Refuse numbers that are not finite, which JSON does not have.

    Raises:
        OutputError: When it cannot be written.
        ValueError: If a number is not finite and ``finite`` is True.
    """
    text = json.dumps(values, indent=indent, sort_keys=sort, ensure_ascii=False, allow_nan=not finite)
    write_text(path, text + "\n")


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written; callers check before the work whose result it holds.

    Nothing is left behind, and missing parent folders are not made.

    Raises:
        OutputError: When there is a folder of that name, the name is too long, or its place cannot be written to.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; allowed is the name of a file")
        place = next(folder for folder in path.absolute().parents if folder.exists())
        trial = _temporary(place / path.name)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def leftovers(path: Path) -> list[Path]:
    """Return what killed processes left of their writing to a path: partial files and folders of no living process."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]{8})([0-9a-f]{8})?\.partial")
    matches = ((entry, pattern.fullmatch(entry.name)) for entry in path.parent.iterdir())
    return [entry for entry, match in matches if match and not _is_alive(entry, match)]


def _is_alive(entry: Path, match: re.Match[str]) -> bool:
    """True if a process writes a partial file now; older versions named no process, and theirs are old or alive."""
    try:
        if match[2] is None:
            return time.time() - entry.stat().st_mtime < _FORSAKEN_SECONDS
        os.kill(int(match[1], 16), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of another user, or gone meanwhile
    return True


def partial_mark() -> str:
    """Return the part of a temporary name that is different for every write: the process, and random digits."""
    return f"{os.getpid():08x}{secrets.token_hex(4)}"


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{partial_mark()}.partial")
