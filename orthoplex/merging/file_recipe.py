"""Recipes of merged files: written into the file, and enough to make the merge again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from orthoplex import __version__
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.files import parse_json
from orthoplex.merging.strengths import Strengths
from orthoplex.merging.truncation import Truncation

RECIPE_KEY = "orthoplex_recipe"
"""The recipe's key in the metadata of a merged file."""
_FORMAT = 1


@final
@dataclass(frozen=True)
class RecipeFile:
    """One file of a recipe.

    Attributes:
        name: The file's name without its suffix.
        file: The file's name; None for changes that were in no file.
        content_hash: SHA-256 (hex) of its content; see ``LoraFile``.
        strengths: As ``Strengths.read`` reads them.
    """

    name: str
    file: str | None
    content_hash: str
    strengths: str


@final
@dataclass(frozen=True)
class FileSettings:
    """How the files of a recipe are read, and how the result is written.

    Attributes:
        style: A name in ``STYLES``; None for that of the merge.
        dtype: Name of the type of the numbers; None for one that the files decide.
        family: The family that was asked for; None for the one that is detected.
        partial: True if keys that cannot be read are left out.
    """

    style: str | None = None
    dtype: str | None = None
    family: str | None = None
    partial: bool = False


@final
@dataclass(frozen=True)
class FileRecipe:
    """The files, strengths and options of a merge.

    Attributes:
        files: The files, in the order in which they are stacked.
        algorithm: A name in ``ALGORITHMS``.
        options: All options of the algorithm.
        scale: The strength of the whole.
        truncation: The fields of a ``Truncation``; None without one.
        only: The parts of the model that are merged; empty for all.
        family: The family of the files; None if no table knows it.
        version: Their version.
        settings: How the files are read and the result is written.
        package_version: Version of orthoplex that merged.
    """

    files: tuple[RecipeFile, ...]
    algorithm: str
    options: Mapping[str, float | int] = field(default_factory=dict)
    scale: float = 1.0
    truncation: Mapping[str, float | int | None] | None = None
    only: tuple[str, ...] = ()
    family: str | None = None
    version: str | None = None
    settings: FileSettings = field(default_factory=FileSettings)
    package_version: str = __version__

    @staticmethod
    def of(
        files: Sequence[tuple[LoraFile, Strengths]],
        algorithm: str,
        options: Mapping[str, float | int],
        scale: float,
        truncation: Truncation | None,
        only: Sequence[str],
    ) -> FileRecipe:
        """Return the recipe of a merge; see ``merge_files``."""
        named = tuple(
            RecipeFile(file.name, file.path.name if file.path else None, file.content_hash, strengths.text)
            for file, strengths in files
        )
        first = files[0][0]
        cut = None if truncation is None else asdict(truncation)
        return FileRecipe(named, algorithm, options, scale, cut, tuple(only), first.family, first.version)

    def to_text(self) -> str:
        """Return the recipe as JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=False)

    @staticmethod
    def from_text(text: str) -> FileRecipe:
        """Read a recipe from JSON.

        Raises:
            ConfigurationError: When it is no recipe, or of a format that this version does not know.
        """
        values = _parsed(text)
        if values.get("format") != _FORMAT:
            raise ConfigurationError(f"a recipe has format {values.get('format')!r}; allowed is {_FORMAT}")
        try:
            files = tuple(RecipeFile(**item) for item in values["files"])
            settings = FileSettings(**values.get("settings", {}))
            own = ("format", "files", "only", "settings")
            rest = {name: value for name, value in values.items() if name not in own}
            return FileRecipe(files, only=tuple(values.get("only", ())), settings=settings, **rest)
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"a recipe cannot be read: {error}; allowed are those of merged files") from error

    @staticmethod
    def of_file(lora: LoraFile) -> FileRecipe:
        """Return the recipe of a merged file; see ``of_metadata``."""
        return FileRecipe.of_metadata(lora.metadata, lora.label)

    @staticmethod
    def of_metadata(metadata: Mapping[str, str], label: str) -> FileRecipe:
        """Return the recipe in a merged file's header.

        Args:
            metadata: The text pairs of the header.
            label: The file, for the errors.

        Raises:
            ConfigurationError: When there is none, or one that was made with a base.
        """
        if "base" in _parsed(metadata.get(RECIPE_KEY, "{}")):
            raise ConfigurationError(
                f"{label} was merged with a base, which its recipe names; allowed are files that were merged "
                "without one: merge its files with --base again"
            )
        if RECIPE_KEY not in metadata:
            raise ConfigurationError(
                f"{label} has no recipe; allowed are files that were merged by orthoplex (metadata {RECIPE_KEY!r})"
            )
        return FileRecipe.from_text(metadata[RECIPE_KEY])

    def find(self, folder: Path, read: Callable[[Path], LoraFile]) -> list[LoraFile]:
        """Return the recipe's files, read from a folder and its inner folders.

        A file is looked for by its name. If there is none of that name, all others are read, and their content decides.

        Args:
            folder: The folder.
            read: Reads a file; files that it refuses are no candidates.

        Raises:
            ConfigurationError: When files are missing (names all), or only others of their names are there.
        """
        paths = sorted(folder.rglob("*.safetensors"))
        candidates = {id(item): [path for path in paths if path.name == item.file] for item in self.files}
        others = [path for path in paths if path.name not in {item.file for item in self.files}]
        unnamed = [item for item in self.files if not candidates[id(item)]]
        by_hash = {lora.content_hash: lora for lora in _readable(others, read)} if unnamed else {}
        missing = [item for item in unnamed if item.content_hash not in by_hash]
        if missing:
            raise ConfigurationError(
                f"{', '.join(item.file or item.name for item in missing)} of the recipe is not in {folder}; allowed is "
                f"a folder with all {len(self.files)} files"
            )
        return [
            by_hash[item.content_hash]
            if item in unnamed
            else _same_content(item, [read(p) for p in candidates[id(item)]])
            for item in self.files
        ]


def _readable(paths: Sequence[Path], read: Callable[[Path], LoraFile]) -> Iterator[LoraFile]:
    for path in paths:
        with contextlib.suppress(OrthoplexError):
            yield read(path)


def _same_content(item: RecipeFile, files: Sequence[LoraFile]) -> LoraFile:
    for lora in files:
        if lora.content_hash == item.content_hash:
            return lora
    raise ConfigurationError(
        f"{files[0].label} has the content hash {files[0].content_hash[:12]}; the recipe's {item.name} has "
        f"{item.content_hash[:12]}, and allowed is the very same file"
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ConfigurationError(f"a recipe is no JSON: {error}; allowed are those of merged files") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"a recipe is {type(values).__name__}; allowed is a JSON object")
    return values
