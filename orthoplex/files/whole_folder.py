"""Folders that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.files.atomic import check_writable, leftovers, partial_mark


@contextmanager
def folder_written_whole(folder: Path, *, overwrite: bool = False, last: str = "") -> Generator[Path, None, None]:
    """Yield the name of a folder to make and fill; leaving without an error gives it its place.

    After an error it is removed, and the older folder is untouched.

    Args:
        folder: A new or empty folder.
        overwrite: Replace a folder that holds something.
        last: The file without which the folder is incomplete: where files are moved one by one, it is moved last.

    Raises:
        ConfigurationError: See ``check_folder``.
        OutputError: If it cannot be written, or another process filled the folder meanwhile.
    """
    folder = folder.resolve()
    _put_back(folder)
    check_folder(folder, overwrite=overwrite)
    is_there, is_full = folder.is_dir(), _is_full(folder)
    mark = partial_mark()
    # An empty folder may be a mount point, which no rename replaces: it is filled from within.
    temporary = folder / f".{mark}.partial" if is_there and not is_full else _beside(folder, f"{mark}.partial")
    replaced = _beside(folder, f"{mark}.replaced")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if is_full:
            os.replace(folder, replaced)
        if temporary.parent == folder:
            _move_out(temporary, folder, last)
        else:
            os.replace(temporary, folder)  # fails where another process has filled the folder meanwhile
        for leftover in leftovers(folder):
            shutil.rmtree(leftover, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir():
            raise OutputError(
                f"{folder} was filled by another process meanwhile; give another name, or write again with overwrite"
            ) from error
        raise OutputError(f"{folder} cannot be written: {error}") from error
    finally:
        if replaced.exists() and not folder.exists():
            os.replace(replaced, folder)
        for leftover in (temporary, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that could not be written; callers check before the work whose result it holds.

    Raises:
        ConfigurationError: If it is a file, or holds something and ``overwrite`` is False.
        OutputError: If its place cannot be written to.
    """
    if folder.is_file():
        raise ConfigurationError(f"{folder}: is a file, a folder is needed")
    if _is_full(folder) and not overwrite:
        raise ConfigurationError(f"{folder}: the folder is not empty, allowed is a new or empty one, or overwrite=True")
    check_writable(folder / "trial" if folder.is_dir() else folder)


@contextmanager
def folder_made_once(folder: Path) -> Generator[Path, None, None]:
    """Yield an empty folder that becomes ``folder`` on leaving; after an error nothing is left of it.

    Processes that share a work folder may make the same folder at a time: each fills its own, the first one stays.
    """
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Put back a folder that a killed process had moved aside before the new folder was in its place."""
    aside = list(folder.parent.glob(f".{folder.name}.*.replaced")) if folder.parent.is_dir() else []
    if len(aside) == 1 and not folder.exists():
        os.replace(aside[0], folder)


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")


def _move_out(temporary: Path, folder: Path, last: str) -> None:
    """Move everything one level up."""
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
        os.replace(path, folder / path.name)
