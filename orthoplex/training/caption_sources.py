"""Which caption belongs to which picture of a folder."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import final

from orthoplex.errors import DatasetError
from orthoplex.training.caption_files import CAPTION_SUFFIXES, CaptionTable, json_keys, read_captions, read_table
from orthoplex.training.folder_files import FolderFile, named

_NO_CAPTION = {"license", "licence", "readme", "notice", "attribution", "credits", "copying"}


@final
@dataclass(frozen=True)
class PictureCaptions:
    """The captions of a picture, as written, and their source: a suffix, or the name of a table."""

    texts: tuple[str, ...]
    source: str


@final
@dataclass(frozen=True)
class CaptionSources:
    """All captions of a folder.

    Attributes:
        captions: Name of a picture -> its captions.
        unread: Files that are no captions of a picture.
        errors: Files that are damaged.
        warnings: Captions that are not used.
    """

    captions: dict[str, PictureCaptions]
    unread: tuple[FolderFile, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @staticmethod
    def read(files: Sequence[FolderFile]) -> "CaptionSources":
        """Read the captions beside pictures, then tables: the first that says something of a picture is used."""
        matching = _Matching([file for file in files if file.role == "picture"])
        beside = [file for file in files if file.role == "caption"]
        for file in sorted(beside, key=lambda file: CAPTION_SUFFIXES.index(file.path.suffix.lower())):
            _attempt(matching, file, _read_beside)
        for file in files:
            if file.role == "table" or file in matching.lone_json:
                _attempt(matching, file, _read_table)
        return CaptionSources(
            {name: items[0] for name, items in matching.captions.items()},
            tuple(matching.unread),
            tuple(matching.errors),
            (*matching.warnings, *_unused(matching)),
        )


@final
@dataclass
class _Matching:
    """The pictures by their names, and what was read so far."""

    pictures: list[FolderFile]
    captions: dict[str, list[PictureCaptions]] = field(default_factory=dict)
    lone_json: list[FolderFile] = field(default_factory=list)
    unread: list[FolderFile] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._index: dict[tuple[str, str], list[FolderFile]] = {}
        for picture in self.pictures:
            path = PurePosixPath(picture.name)
            keys = {("path", picture.name), ("name", path.name), ("stem", path.stem)}
            keys |= {("path", path.with_suffix("").as_posix())}
            for level, key in keys | {(level + " in lower case", key.casefold()) for level, key in keys}:
                self._index.setdefault((level, key), []).append(picture)

    def beside(self, caption: FolderFile) -> list[FolderFile]:
        """Return the pictures of a caption file: of its stem, or its name without the suffix, first in equal case."""
        path = PurePosixPath(caption.name).with_suffix("").as_posix()
        return self._index.get(("path", path)) or self._index.get(("path in lower case", path.casefold()), [])

    def named(self, name: str, table: FolderFile) -> list[FolderFile]:
        """Return the pictures that a table calls so: paths from it or from the folder, else names, else stems."""
        path = PurePosixPath(name.replace("\\", "/"))
        inner = (PurePosixPath(table.name).parent / path).as_posix()
        for case in ("", " in lower case"):
            for level, key in (("path", inner), ("path", path.as_posix()), ("name", path.name), ("stem", path.name)):
                pictures = self._index.get((level + case, key.casefold() if case else key), [])
                if len({Path(picture.name).parent for picture in pictures}) == 1:
                    return pictures
        return []

    def add(self, picture: FolderFile, texts: tuple[str, ...], source: str) -> None:
        """Note captions of a picture."""
        self.captions.setdefault(picture.name, []).append(PictureCaptions(texts, source))

    def leave(self, file: FolderFile, reason: str, group: str = "") -> None:
        """Note a file that is not read."""
        self.unread.append(replace(file, role="unread", group=group, reason=reason))


def _attempt(matching: _Matching, file: FolderFile, read: Callable[[_Matching, FolderFile], None]) -> None:
    try:
        read(matching, file)
    except DatasetError as error:
        matching.errors.append(str(error))


def _read_beside(matching: _Matching, file: FolderFile) -> None:
    pictures, suffix = matching.beside(file), file.path.suffix.lower()
    if not pictures:
        if suffix == ".json":
            matching.lone_json.append(file)
        elif file.path.stem.lower() in _NO_CAPTION:
            matching.leave(file, "it is no caption but a text about the folder")
        else:
            matching.leave(file, "it belongs to no picture that is read", "caption without a picture")
            matching.orphans.append(file.name)
        return
    texts = read_captions(file.path)
    if not texts:
        matching.leave(
            file, f"it has no caption; its keys are {json_keys(file.path)}, allowed are caption, text, prompt"
        )
    elif texts == ("",):
        matching.warnings.append(f"caption {file.name} is empty; its picture is learned as the trigger alone")
    for picture in pictures if texts else ():
        matching.add(picture, texts, suffix)


def _read_table(matching: _Matching, file: FolderFile) -> None:
    table = read_table(file.path)
    rows = [(row, matching.named(row.file_name, file)) for row in table.rows]
    if table.refusal or not (table.is_certain or any(pictures for _, pictures in rows)):
        matching.leave(file, table.refusal or "it names no picture of the folder")
        return
    texts: dict[str, list[str]] = {}
    for row, pictures in rows:
        for picture in pictures:
            texts.setdefault(picture.name, []).append(row.text)
    by_name = {picture.name: picture for picture in matching.pictures}
    for name, captions in texts.items():
        matching.add(by_name[name], tuple(dict.fromkeys(captions)), file.name)
    absent = [f"line {row.number}: {row.file_name}" for row, pictures in rows if not pictures]
    matching.warnings += _about_table(file, table, absent)


def _about_table(file: FolderFile, table: CaptionTable, absent: list[str]) -> Iterable[str]:
    if absent:
        yield f"{file.name} names pictures that are not there, or are there in several folders: {named(absent)}"
    if table.empty:
        yield f"{file.name} has no picture or no caption in line {named([str(number) for number in table.empty])}"


def _unused(matching: _Matching) -> Iterable[str]:
    """Say which captions have no picture, and where a second source has another caption than the one that is used."""
    if matching.orphans:
        yield f"captions without a picture are not used: {named(matching.orphans)}"
    pairs: dict[tuple[str, str], list[str]] = {}
    for name, (first, *others) in matching.captions.items():
        for other in others:
            if [text.strip() for text in other.texts] != [text.strip() for text in first.texts]:
                pairs.setdefault((first.source, other.source), []).append(name)
    for (used, unused), names in pairs.items():
        yield f"{named(names)}: captions from {used} are used, others from {unused} are not"
