"""The captions of a folder, each with its picture."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import final

from orthoplex.errors import DatasetError
from orthoplex.training.caption_files import CAPTION_SUFFIXES, CaptionTable, json_keys, read_captions, read_table
from orthoplex.training.folder_files import FolderFile, named

_NO_CAPTION = {"license", "licence", "readme", "notice", "attribution", "credits", "copying"}
_ORPHAN = "caption without a picture"


@final
@dataclass(frozen=True)
class PictureCaptions:
    """The captions of a picture, as written, and their source: a suffix, or the name of a table."""

    texts: tuple[str, ...]
    source: str


@final
@dataclass(frozen=True)
class _FileResult:
    """The content of one file of captions.

    Attributes:
        captions: Pairs of a picture's name and its captions in the file.
        unread: The file with the reason not to read it; None if it is read.
        errors: Its damage.
        warnings: Its captions that are not used.
    """

    captions: tuple[tuple[str, PictureCaptions], ...] = ()
    unread: FolderFile | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @staticmethod
    def left(file: FolderFile, reason: str, group: str = "") -> "_FileResult":
        """Return the result of a file that is not read."""
        return _FileResult(unread=replace(file, role="unread", group=group, reason=reason))


@final
@dataclass(frozen=True)
class CaptionSources:
    """All captions of a folder.

    Attributes:
        captions: Name of a picture -> its captions.
        unread: Files that are no captions of a picture.
        errors: Files that are damaged, and captions that are cut off.
        warnings: Captions that are not used.
    """

    captions: dict[str, PictureCaptions]
    unread: tuple[FolderFile, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @staticmethod
    def read(files: Sequence[FolderFile]) -> "CaptionSources":
        """Read the captions beside pictures, then tables; the first caption of a picture is used."""
        names = _PictureNames([file for file in files if file.role == "picture"])
        beside = [file for file in files if file.role == "caption"]
        beside.sort(key=lambda file: CAPTION_SUFFIXES.index(file.path.suffix.lower()))
        lone = {file.name for file in beside if file.path.suffix.lower() == ".json" and not names.beside(file)}
        results = [_beside(names, file) for file in beside if file.name not in lone]
        captioned = {name for result in results for name, _ in result.captions}
        tables = [file for file in files if file.role == "table" or file.name in lone]
        results += [_in_table(names, file, captioned) for file in tables]
        captions: dict[str, list[PictureCaptions]] = {}
        for result in results:
            for name, item in result.captions:
                captions.setdefault(name, []).append(item)
        unread = tuple(result.unread for result in results if result.unread is not None)
        return CaptionSources(
            {name: items[0] for name, items in captions.items()},
            unread,
            tuple(error for result in results for error in result.errors),
            (*(warning for result in results for warning in result.warnings), *_unused(captions, unread)),
        )


@final
class _PictureNames:
    """The pictures of a folder by all names that captions give them."""

    def __init__(self, pictures: Iterable[FolderFile]) -> None:
        self._index: dict[tuple[str, str], list[FolderFile]] = {}
        for picture in pictures:
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
        """Return the pictures of a name in a table: paths from it or from the folder, else names, else stems."""
        path = PurePosixPath(name.replace("\\", "/"))
        inner = (PurePosixPath(table.name).parent / path).as_posix()
        for case in ("", " in lower case"):
            for level, key in (("path", inner), ("path", path.as_posix()), ("name", path.name), ("stem", path.name)):
                pictures = self._index.get((level + case, key.casefold() if case else key), [])
                if len({Path(picture.name).parent for picture in pictures}) == 1:
                    return pictures
        return []


def _beside(names: _PictureNames, file: FolderFile) -> _FileResult:
    """Read a caption file beside its pictures."""
    pictures = names.beside(file)
    if not pictures and file.path.stem.lower() in _NO_CAPTION:
        return _FileResult.left(file, "it is no caption but a text about the folder")
    if not pictures:
        return _FileResult.left(file, "it belongs to no picture that is read", _ORPHAN)
    try:
        texts = read_captions(file.path)
        if not texts:
            keys = json_keys(file.path)
            return _FileResult.left(file, f"it has no caption; its keys are {keys}, allowed are caption, text, prompt")
    except DatasetError as error:
        return _FileResult(errors=(str(error),))
    warnings = ()
    if texts == ("",):
        warnings = (f"caption {file.name} is empty; its picture is learned as the trigger alone",)
    item = PictureCaptions(texts, file.path.suffix.lower())
    return _FileResult(tuple((picture.name, item) for picture in pictures), warnings=warnings)


def _in_table(names: _PictureNames, file: FolderFile, captioned: set[str]) -> _FileResult:
    """Read a table of captions.

    Args:
        names: The pictures.
        file: The table.
        captioned: Names of the pictures that have captions beside them, and need none of a table.
    """
    try:
        table = read_table(file.path)
    except DatasetError as error:
        return _FileResult(errors=(str(error),))
    rows = [(row, names.named(row.file_name, file)) for row in table.rows]
    if table.refusal or not (table.is_certain or any(pictures for _, pictures in rows)):
        return _FileResult.left(file, table.refusal or "it names no picture of the folder")
    texts: dict[str, list[str]] = {}
    for row, pictures in rows:
        for picture in pictures if row.is_whole else ():
            texts.setdefault(picture.name, []).append(row.text)
    cut = [
        str(row.number)
        for row, pictures in rows
        if not row.is_whole and not (pictures and captioned.issuperset(picture.name for picture in pictures))
    ]
    absent = [f"line {row.number}: {row.file_name}" for row, pictures in rows if not pictures and row.is_whole]
    return _FileResult(
        tuple((name, PictureCaptions(tuple(dict.fromkeys(given)), file.name)) for name, given in texts.items()),
        errors=tuple(_about_cut_rows(file, cut)),
        warnings=tuple(_about_table(file, table, absent)),
    )


def _about_cut_rows(file: FolderFile, numbers: list[str]) -> Iterator[str]:
    if numbers:
        yield f"{file.path} line {named(numbers)} has more values than columns; put the caption in quotes"


def _about_table(file: FolderFile, table: CaptionTable, absent: list[str]) -> Iterator[str]:
    if absent:
        yield f"{file.name} names pictures that are not there, or are there in several folders: {named(absent)}"
    if table.empty:
        yield f"{file.name} has no picture or no caption in line {named([str(number) for number in table.empty])}"


def _unused(captions: dict[str, list[PictureCaptions]], unread: Iterable[FolderFile]) -> Iterator[str]:
    """Yield the captions without a picture, and those of a second source that differ from the ones that are used."""
    if orphans := [file.name for file in unread if file.group == _ORPHAN]:
        yield f"captions without a picture are not used: {named(orphans)}"
    pairs: dict[tuple[str, str], list[str]] = {}
    for name, (first, *others) in captions.items():
        for other in others:
            if [text.strip() for text in other.texts] != [text.strip() for text in first.texts]:
                pairs.setdefault((first.source, other.source), []).append(name)
    for (used, unused), names in pairs.items():
        yield f"{named(names)}: captions from {used} are used, others from {unused} are not"
