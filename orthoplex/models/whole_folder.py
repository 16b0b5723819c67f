"""Pipeline folders that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.files import check_writable

RECIPE_NAME = "recipe.json"
INDEX_NAME = "model_index.json"


@contextmanager
def whole_folder(folder: Path, *, recipe: Mapping[str, Any] | None, overwrite: bool = False) -> Iterator[Path]:
    """Yield the name of a folder to write; leaving without an error gives it its place, and the recipe in it.

    After an error it is removed, and what was in its place is untouched.

    Args:
        folder: A new or empty folder.
        recipe: What is folded in, or None.
        overwrite: Replace a folder that holds something.

    Raises:
        ConfigurationError: See ``check_pipeline_folder``.
        OutputError: If it cannot be written, or another process filled the folder meanwhile.
    """
    folder = folder.resolve()
    _put_back(folder)
    check_pipeline_folder(folder, overwrite=overwrite)
    is_there, is_full = folder.is_dir(), _is_full(folder)
    mark = secrets.token_hex(4)
    # An empty folder may be a mount point, which no rename replaces: it is filled from within.
    temporary = folder / f".{mark}.partial" if is_there and not is_full else _beside(folder, f"{mark}.partial")
    replaced = _beside(folder, f"{mark}.replaced")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if recipe is not None:
            (temporary / RECIPE_NAME).write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if is_full:
            os.replace(folder, replaced)
        if temporary.parent == folder:
            _move_out(temporary, folder)
        else:
            os.replace(temporary, folder)  # fails where another process has filled the folder meanwhile
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    finally:
        if replaced.exists() and not folder.exists():
            os.replace(replaced, folder)
        for leftover in (temporary, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)


def check_pipeline_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that no pipeline may be written to; callers check before the work whose result it holds.

    Raises:
        ConfigurationError: If it is a file, holds something and ``overwrite`` is False, or holds no pipeline.
        OutputError: If its place cannot be written to.
    """
    if folder.is_file():
        raise ConfigurationError(f"{folder}: is a file, a folder is needed")
    if _is_full(folder) and not overwrite:
        raise ConfigurationError(f"{folder}: the folder is not empty, allowed is a new or empty one, or overwrite=True")
    if _is_full(folder) and not (folder / INDEX_NAME).is_file():
        raise ConfigurationError(f"{folder}: holds no {INDEX_NAME}, only a pipeline folder may be overwritten")
    check_writable(folder / RECIPE_NAME if folder.is_dir() else folder)


def check_pipeline_tokens(tokens: Sequence[str]) -> None:
    """Refuse tokens that have vectors of single cross-attention layers: an ordinary pipeline has no place for them.

    Args:
        tokens: Those that have; callers with much work ahead check before it.

    Raises:
        ConfigurationError: If there is any; says what to do instead.
    """
    if tokens:
        raise ConfigurationError(
            f"tokens {', '.join(sorted(tokens))} have vectors of single cross-attention layers, which no pipeline "
            "folder can hold; fold the concept files in where pictures are made, or train with token_vectors = 'shared'"
        )


def _put_back(folder: Path) -> None:
    """Put back what was moved aside by a process that was killed before it had put the new folder in its place."""
    aside = list(folder.parent.glob(f".{folder.name}.*.replaced")) if folder.parent.is_dir() else []
    if len(aside) == 1 and not folder.exists():
        os.replace(aside[0], folder)


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")


def _move_out(temporary: Path, folder: Path) -> None:
    """Move everything one level up; the index, without which the folder is no pipeline, comes last."""
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == INDEX_NAME):
        os.replace(path, folder / path.name)
