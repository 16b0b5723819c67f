"""Pipeline folders that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orthoplex.errors import ConfigurationError
from orthoplex.files import check_folder, folder_written_whole, read_json, write_json

RECIPE_NAME = "recipe.json"
INDEX_NAME = "model_index.json"
"""The file without which a folder is no pipeline, but for those of modular pipelines."""
MODULAR_INDEX_NAME = "modular_model_index.json"
"""The same file of a modular pipeline of diffusers."""
SETTINGS_SUFFIXES = (".jinja", ".json", ".model", ".txt")
"""Endings of the files of components that are no weights and no code."""
_SUFFIXES = (".bin", ".safetensors", *SETTINGS_SUFFIXES)


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


def index_path(folder: Path) -> Path:
    """Return the file that names the parts of a pipeline folder; where there is none, the usual one."""
    usual, modular = folder / INDEX_NAME, folder / MODULAR_INDEX_NAME
    return modular if modular.is_file() and not usual.is_file() else usual


def plain_index(values: Any) -> Any:  # noqa: ANN401  (whatever a JSON file holds)
    """Return an index as ``model_index.json`` has it: of modular ones, without where their parts once were.

    Args:
        values: Of either index.
    """
    if not isinstance(values, dict):
        return values
    return {
        name: entry[:2] if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], dict) else entry
        for name, entry in values.items()
        if name != "_blocks_class_name"
    }


def check_pipeline_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that no pipeline may be written to; callers check before the work whose result it holds.

    Raises:
        ConfigurationError: If it is a file, holds something and ``overwrite`` is False, or holds no pipeline, or beside
            a pipeline what would be lost.
        OutputError: If its place cannot be written to.
    """
    check_folder(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()) and not index_path(folder).is_file():
        raise ConfigurationError(f"{folder}: holds no {INDEX_NAME}, only a pipeline folder may be overwritten")
    other = next(_no_part_of_a_pipeline(folder), None) if index_path(folder).is_file() else None
    if other is not None:
        raise ConfigurationError(
            f"{folder}: holds {other.relative_to(folder)}, which is no part of its pipeline and would be deleted; move "
            "it, or give another name"
        )


def _no_part_of_a_pipeline(folder: Path) -> Iterator[Path]:
    """The files and folders that no pipeline folder has."""
    try:
        index = read_json(index_path(folder))
    except (OSError, ValueError):
        index = {}
    components = {name for name in index if not name.startswith("_")} if isinstance(index, dict) else set()
    for path in sorted(folder.iterdir()):
        if path.name in components and path.is_dir():
            yield from (part for part in sorted(path.iterdir()) if part.suffix not in _SUFFIXES or part.is_dir())
        elif path.name not in (INDEX_NAME, MODULAR_INDEX_NAME, RECIPE_NAME) and path.name not in components:
            yield path


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
