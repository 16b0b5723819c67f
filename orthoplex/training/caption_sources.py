"""The captions of a folder, each with its picture."""

import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import final
from urllib.parse import unquote, urlsplit

from orthoplex.errors import DatasetError
from orthoplex.training.caption_files import CAPTION_SUFFIXES, read_captions, reason_without_caption
from orthoplex.training.caption_tables import CaptionTable, read_table
from orthoplex.training.folder_files import FolderFile, counted, named

_NO_CAPTION = {"license", "licence", "readme", "notice", "attribution", "credits", "copying"}
_ORPHAN = "caption without a picture"
_WITHOUT_CAPTIONS = 'it names pictures, and says no captions of them; allowed is {"0.png": "a caption"}'


@final
@dataclass(frozen=True)
class PictureCaptions:
    """The captions of a picture, as written.

    Attributes:
        texts: The captions.
        source: A suffix, or the name of a table.
        file: The name of their file.
    """

    texts: tuple[str, ...]
    source: str
    file: str


@final
@dataclass(frozen=True)
class _FileResult:
    """The content of one file of captions.

    Attributes:
        captions: Pairs of a picture's name and its captions in the file.
        unread: The file with the reason not to read it; None if it is read.
        errors: Its damage.
        warnings: Its captions that are not used.
        empty: Where captions are that are empty.
        is_useless_table: True for a table of captions that cannot be used.
    """

    captions: tuple[tuple[str, PictureCaptions], ...] = ()
    unread: FolderFile | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    is_useless_table: bool = False

    @staticmethod
    def left(file: FolderFile, reason: str, group: str = "", *, is_table: bool = False) -> "_FileResult":
        """Return the result of a file that is not read."""
        return _FileResult(unread=replace(file, role="unread", group=group, reason=reason), is_useless_table=is_table)


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
        num_templates = sum(file.role == "picture" and file.name not in captions for file in files)
        return CaptionSources(
            {name: items[0] for name, items in captions.items()},
            unread,
            tuple(error for result in results for error in result.errors),
            (
                *_about_empty([place for result in results for place in result.empty]),
                *(warning for result in results for warning in result.warnings),
                *_about_useless_tables(results, num_templates),
                *_unused(captions, unread),
            ),
        )


@final
class _PictureNames:
    """The pictures of a folder by all names that captions give them.

    Names are compared as they are, then with letters and accents as one character (NFC), then in lower case too.
    """

    def __init__(self, pictures: Iterable[FolderFile]) -> None:
        self._stems: dict[tuple[int, str], list[FolderFile]] = {}
        self._ends: dict[tuple[int, str], list[FolderFile]] = {}
        for picture in pictures:
            _enter(self._stems, {PurePosixPath(picture.name).with_suffix("").as_posix(), picture.name}, picture)
            whole = picture.path.absolute().as_posix()
            ends = {*_ends(whole), *_ends(PurePosixPath(whole).with_suffix("").as_posix())}
            _enter(self._ends, ends, picture)

    def beside(self, caption: FolderFile) -> list[FolderFile]:
        """Return the pictures of a caption file: of its stem, or its name without the suffix, first in equal case."""
        spellings = _spellings(PurePosixPath(caption.name).with_suffix("").as_posix())
        return next((self._stems[key] for key in enumerate(spellings) if key in self._stems), [])

    def named(self, name: str, table: FolderFile) -> list[FolderFile]:
        """Return the pictures of a name in a table: a path from it or from the folder, else the longest end of it."""
        if "://" in name:
            name = unquote(urlsplit(name).path)
        path = posixpath.normpath(name.strip().replace("\\", "/")).lstrip("/")
        inner = posixpath.normpath((PurePosixPath(table.name).parent / path).as_posix())
        own, others = (_spellings(inner), _spellings(path)), [_spellings(end) for end in _ends(path)]
        for level in range(_NUM_SPELLINGS):
            candidates = [self._stems.get((level, spellings[level]), []) for spellings in own]
            candidates += [self._ends.get((level, spellings[level]), []) for spellings in others]
            for pictures in candidates:
                if len({Path(picture.name).parent for picture in pictures}) == 1:
                    return pictures
        return []


_NUM_SPELLINGS = 3


def _spellings(name: str) -> tuple[str, str, str]:
    composed = unicodedata.normalize("NFC", name)
    return name, composed, unicodedata.normalize("NFC", composed.casefold())


def _enter(index: dict[tuple[int, str], list[FolderFile]], names: Iterable[str], picture: FolderFile) -> None:
    for key in {key for name in names for key in enumerate(_spellings(name))}:
        index.setdefault(key, []).append(picture)


def _ends(path: str) -> Iterator[str]:
    """Yield the ends of a path, the longest first: ``a/b.png``, ``b.png``."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    yield from ("/".join(parts[start:]) for start in range(len(parts)))


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
            return _FileResult.left(file, reason_without_caption(file.path))
    except DatasetError as error:
        return _FileResult(errors=(str(error),))
    item = PictureCaptions(texts, file.path.suffix.lower(), file.name)
    return _FileResult(
        tuple((picture.name, item) for picture in pictures), empty=(file.name,) if texts == ("",) else ()
    )


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
    if table.refusal:
        return _FileResult.left(file, table.refusal, is_table=table.is_meant)
    if not (table.is_certain or any(pictures for _, pictures in rows)):
        if any(names.named(row.file_name, file) for row in table.empty):
            return _FileResult.left(file, _WITHOUT_CAPTIONS, is_table=True)
        return _FileResult.left(file, "it names no picture of the folder")
    texts: dict[str, list[str]] = {}
    for row, pictures in rows:
        for picture in pictures if row.is_whole else ():
            texts.setdefault(picture.name, []).append(row.text)
    cut = [
        str(row.number)
        for row, pictures in rows
        if not row.is_whole and not (pictures and captioned.issuperset(picture.name for picture in pictures))
    ]
    absent = [f"{table.unit} {row.number}: {row.file_name}" for row, pictures in rows if not pictures and row.is_whole]
    return _FileResult(
        tuple(
            (name, PictureCaptions(tuple(dict.fromkeys(given)), file.name, file.name)) for name, given in texts.items()
        ),
        errors=tuple(_about_cut_rows(file, cut)),
        warnings=tuple(_about_table(file, table, absent)),
        empty=tuple(
            f"{file.name} {table.unit} {row.number}"
            for row, pictures in rows
            if pictures and row.is_whole and not row.text
        ),
    )


def _about_cut_rows(file: FolderFile, numbers: list[str]) -> Iterator[str]:
    if numbers:
        yield f"{file.path} line {named(numbers)} has more values than columns; put the caption in quotes"


def _about_table(file: FolderFile, table: CaptionTable, absent: list[str]) -> Iterator[str]:
    if absent:
        yield f"{file.name} names pictures that are not there, or are there in several folders: {named(absent)}"
    if table.empty and table.is_certain:
        numbers = named([str(row.number) for row in table.empty])
        yield f"{file.name} has no picture or no caption in {table.unit} {numbers}"


def _about_empty(places: list[str]) -> Iterator[str]:
    if len(places) == 1:
        yield f"caption {places[0]} is empty; its picture is learned as the trigger alone"
    elif places:
        count = counted(len(places), "caption")
        yield f"{count} are empty ({named(places)}); their pictures are learned as the trigger alone"


def _about_useless_tables(results: Iterable[_FileResult], num_templates: int) -> Iterator[str]:
    """Yield the tables that are not read while pictures have no captions, which may be there."""
    for result in results:
        if num_templates and result.is_useless_table and result.unread is not None:
            subject = counted(num_templates, "picture") + (" has" if num_templates == 1 else " have")
            yield f"{result.unread.name} is not read: {result.unread.reason}; {subject} no captions but templates"


def _unused(captions: dict[str, list[PictureCaptions]], unread: Iterable[FolderFile]) -> Iterator[str]:
    """Yield the captions without a picture, and those of a second source that differ from the ones that are used."""
    if orphans := [file.name for file in unread if file.group == _ORPHAN]:
        yield f"captions without a picture are not used: {named(orphans)}"
    pairs: dict[tuple[str, str], list[str]] = {}
    for name, (first, *others) in captions.items():
        for other in others:
            if [text.strip() for text in other.texts] != [text.strip() for text in first.texts]:
                is_clear = first.source != other.source
                pair = (first.source, other.source) if is_clear else (first.file, other.file)
                pairs.setdefault(pair, []).append(name)
    for (used, unused), names in pairs.items():
        yield f"{named(names)}: captions from {used} are used, others from {unused} are not"
