"""Pipeline folders that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orthoplex.errors import ConfigurationError
from orthoplex.files import check_folder, folder_written_whole, write_json

RECIPE_NAME = "recipe.json"
INDEX_NAME = "model_index.json"
"""The file without which a folder is no pipeline."""


@contextmanager
def pipeline_folder(folder: Path, *, recipe: Mapping[str, Any] | None, overwrite: bool = False) -> Iterator[Path]:
    """Yield the name of a folder to write; leaving without an error gives it its place, and the recipe in it.

    Args:
        folder: A new or empty folder.
        recipe: What is folded in, or None.
        overwrite: Replace a folder that holds something.

    Raises:
        ConfigurationError: See ``check_pipeline_folder``.
        OutputError: If it cannot be written, or another process filled the folder meanwhile.
    """
    check_pipeline_folder(folder, overwrite=overwrite)
    with folder_written_whole(folder, overwrite=overwrite, last=INDEX_NAME) as temporary:
        yield temporary
        if recipe is not None:
            write_json(temporary / RECIPE_NAME, recipe, indent=2, finite=False)


def check_pipeline_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that no pipeline may be written to; callers check before the work whose result it holds.

    Raises:
        ConfigurationError: If it is a file, holds something and ``overwrite`` is False, or holds no pipeline.
        OutputError: If its place cannot be written to.
    """
    check_folder(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX_NAME).is_file():
        raise ConfigurationError(f"{folder}: holds no {INDEX_NAME}, only a pipeline folder may be overwritten")


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
