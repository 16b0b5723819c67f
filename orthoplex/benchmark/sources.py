"""Folders of pictures that concepts are made of, and the one place that splits them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from orthoplex import vignette
from orthoplex.concepts import KINDS, check_name
from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.files import check_picture_folder, folder_made_once, picture_files, read_json, read_picture
from orthoplex.options import FILLED, check_fields, checked, limited, option
from orthoplex.training import DataFolder

MINIMUM_PICTURES = 4


@dataclass(frozen=True)
class ConceptSource:
    """The pictures of one concept, and its name and class word.

    Attributes:
        name: Concept name.
        kind: One of `orthoplex.concepts.KINDS`.
        class_word: The ordinary word for its class.
        folder: Pictures, with captions beside them.
        held_out: The number of its last pictures that training does not use; None for a quarter.
    """

    name: str
    kind: str
    class_word: str = field(metadata=limited(FILLED))
    folder: Path
    held_out: int | None = option(None, lowest=1)

    def __post_init__(self) -> None:
        """Refuse names and kinds that no concept may have."""
        check_fields(self, f"concept {self.name!r}:")
        check_name(self.name)
        if self.kind not in KINDS:
            raise ConfigurationError(f"concept {self.name!r} has kind {self.kind!r}; allowed: {', '.join(KINDS)}")

    def split(self) -> Split:
        """Split its pictures into training and held-out pictures (see `split_pictures`)."""
        return split_pictures(self.folder, self.held_out)

    @property
    def token(self) -> str:
        """`<name>`."""
        return f"<{self.name}>"


@dataclass(frozen=True)
class Split:
    """The training files and the held-out files of one folder."""

    training: tuple[Path, ...]
    held_out: tuple[Path, ...]


def split_pictures(folder: Path, held_out: int | None = None) -> Split:
    """The first three quarters of a folder's pictures, by file name, are for training, the rest is held out.

    With n pictures `floor(n/4)` are held out: 4 of 16, 3 of 12; or `held_out` of them.

    Raises:
        DatasetError: when the folder is missing, holds fewer than four pictures or none beside those held out, or one
            of its pictures twice, which could put the same picture on both sides.
    """
    check_picture_folder(folder)
    files = picture_files(folder)
    if len(files) < MINIMUM_PICTURES:
        raise DatasetError(f"folder {folder} holds {len(files)} pictures; allowed: {MINIMUM_PICTURES} or more")
    contents: dict[bytes, Path] = {}
    for path in files:
        twin = contents.setdefault(path.read_bytes(), path)
        if twin is not path:
            raise DatasetError(
                f"folder {folder}: {path.name} is a duplicate of {twin.name}; allowed: each picture once"
            )
    cut = len(files) - (len(files) // 4 if held_out is None else held_out)
    if cut < 1:
        raise DatasetError(f"folder {folder} holds {len(files)} pictures, {held_out} held out; allowed: fewer held out")
    return Split(tuple(files[:cut]), tuple(files[cut:]))


def training_folder(source: ConceptSource, work: Path) -> Path:
    """A folder with only the training pictures of a source and their captions, made under `work` if missing.

    Its name holds the hash of its files, so that changed pictures get a folder of their own.
    """
    split = source.split()
    captions = [path.with_suffix(".txt") for path in split.training if path.with_suffix(".txt").is_file()]
    names = {path.name for path in split.training}
    account = DataFolder.scan(source.folder)
    account.check()
    rows = [
        {"file_name": picture.file_name, "text": text}
        for picture in account.pictures
        if picture.file_name in names and not picture.path.with_suffix(".txt").is_file()
        for text in picture.captions
    ]
    table = "".join(json.dumps(row) + "\n" for row in rows)
    digest = hashlib.sha256(table.encode())
    for path in (*split.training, *captions):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    folder = work / "pictures-of-concepts" / f"{source.name}-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with folder_made_once(folder) as partial:
        for path in (*split.training, *captions):
            shutil.copyfile(path, partial / path.name)
        if table:
            (partial / "metadata.jsonl").write_text(table, encoding="utf-8")
    return folder


def open_pictures(paths: Sequence[Path]) -> list[Image.Image]:
    """Read pictures as RGB (see `orthoplex.files.read_picture`)."""
    return [read_picture(path) for path in paths]


def sample_sources(names: Sequence[str] = ()) -> tuple[ConceptSource, ...]:
    """The sample concepts that ship with the package, all of them or the named ones, in their own order.

    Raises:
        ConfigurationError: for a name that is no sample concept.
    """
    samples = [
        ConceptSource(sample.name, sample.kind, sample.class_word, Path(sample.folder))
        for sample in vignette.sample_concepts()
    ]
    known = {source.name for source in samples}
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{name!r} is no sample concept; allowed: {', '.join(sorted(known))}")
    return tuple(source for source in samples if not names or source.name in names)


def indexed_sources(index: Path, *, names: Sequence[str] = (), kinds: Sequence[str] = ()) -> tuple[ConceptSource, ...]:
    """The concepts that an index lists, all of them or those of some names or kinds, in its order.

    An index is a JSON list of objects with `name`, `kind`, `class_word` and perhaps `held_out`; other keys are ignored.
    The pictures of a concept lie in the folder of its name beside the index.

    Raises:
        ConfigurationError: when the index cannot be read, an entry is not as said, or a name or kind is not listed.
    """
    try:
        rows = read_json(index)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"index {index} cannot be read: {error}") from error
    rows = checked(f"index {index}", rows, tuple[Mapping[str, Any], ...])
    sources = []
    for number, row in enumerate(rows, start=1):
        lacking = [key for key in ("name", "kind", "class_word") if key not in row]
        if lacking:
            raise ConfigurationError(f"index {index} entry {number} lacks {', '.join(lacking)}; allowed: all three")
        folder = index.parent / str(row["name"])
        sources.append(ConceptSource(row["name"], row["kind"], row["class_word"], folder, row.get("held_out")))
    for what, wanted, there in (
        ("name", names, [source.name for source in sources]),
        ("kind", kinds, [source.kind for source in sources]),
    ):
        for value in wanted:
            if value not in there:
                known = ", ".join(dict.fromkeys(there))
                raise ConfigurationError(f"index {index} lists no concept of the {what} {value!r}; allowed: {known}")
    of_name = [source for source in sources if not names or source.name in names]
    chosen = tuple(source for source in of_name if not kinds or source.kind in kinds)
    if not chosen:
        raise ConfigurationError(
            f"index {index} lists no {' or '.join(kinds)} among {', '.join(names) or 'its concepts'}"
        )
    return chosen


def shipped_concept(name: str, method: str) -> Path:
    """The file of a sample concept that ships trained."""
    return Path(vignette.concept_file(name, method=method))
