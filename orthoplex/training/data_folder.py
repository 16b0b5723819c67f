"""The account of a folder of pictures: every file is read, or stands among those that are not, with the reason."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from orthoplex.errors import DatasetError
from orthoplex.files import PictureSize, no_pictures, picture_size
from orthoplex.training.buckets import bucket_of
from orthoplex.training.caption_files import CAPTION_SUFFIXES
from orthoplex.training.caption_sources import CaptionSources, PictureCaptions
from orthoplex.training.folder_files import (
    FolderFile,
    counted,
    folder_files,
    named,
    repeating_folders,
    unclear_folders,
)
from orthoplex.training.masks import Masks

_WORDS_OF_A_TAG = 2
_BREAKS = {"\r", "\n"}
TEMPLATES = "templates"
"""Source of captions of a picture without any."""


@final
@dataclass(frozen=True)
class FolderPicture:
    """A picture to train on.

    Attributes:
        path: Where it is.
        file_name: Its path in the folder.
        digest: SHA-256 (hex) of the file.
        size: Its size, upright.
        captions: As written; none where templates take their place. ``checked_folder`` gives them as they are learned.
        source: Their source: ``.txt``, ``metadata.csv``, or ``templates``.
        copies: Names of files with equal bytes, whose captions are among these.
        mask: The file that is white where the picture counts; None if there is none.
        mask_digest: SHA-256 (hex) of that file; empty if there is none.
    """

    path: Path
    file_name: str
    digest: str
    size: PictureSize
    captions: tuple[str, ...]
    source: str
    copies: tuple[str, ...]
    mask: Path | None = None
    mask_digest: str = ""


@final
@dataclass(frozen=True)
class DataFolder:
    """The account of a folder.

    Attributes:
        folder: The folder.
        pictures: The pictures to train on, in the order of their names.
        unread: The files that are not read, with the reasons.
        errors: The reasons why no training can begin: files that are damaged, or no picture.
        warnings: Files that are not used as they may have been meant.
        notes: Remarks on the use of some files.
    """

    folder: Path
    pictures: tuple[FolderPicture, ...]
    unread: tuple[FolderFile, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @staticmethod
    def scan(folder: str | Path, *, with_masks: bool = True) -> "DataFolder":
        """Account for every file of a folder and of folders in it; pixels are not decoded.

        Damaged files are among ``errors``, so that the others are accounted for too.

        Args:
            folder: The folder.
            with_masks: False reads no mask, as of class pictures, all of which counts.

        Raises:
            DatasetError: When the folder is missing, or cannot be read.
        """
        folder = Path(folder)
        files = folder_files(folder)
        candidates = [file for file in files if file.role == "picture"]
        sources = CaptionSources.read(files)
        measured, errors = _measured(candidates)
        masks = Masks.among(files) if with_masks else Masks.unread_among(files)
        pictures, damages = _with_masks(_once(measured, sources.captions), masks)
        if not candidates:
            errors.append(_about_no_pictures(folder, files))
        unread = [file for file in files if file.role == "unread"] + [
            *sources.unread,
            *masks.unread,
            *_copies(pictures, candidates),
        ]
        return DataFolder(
            folder=folder,
            pictures=pictures,
            unread=tuple(sorted(unread, key=lambda file: file.name)),
            errors=(*errors, *sources.errors, *masks.errors, *damages),
            warnings=(*sources.warnings, *masks.warnings),
            notes=_notes(pictures, sources.captions),
        )

    def check(self) -> None:
        """Refuse a folder that cannot be trained on.

        Raises:
            DatasetError: Names the first file that is damaged.
        """
        for error in self.errors:
            count = len(self.errors) - 1
            raise DatasetError(error + (f" (orthoplex check lists {counted(count, 'other fault')})" if count else ""))

    @property
    def summary(self) -> str:
        """One line: pictures and their sizes, captions by source, and what is not read."""
        sizes = sorted((item.size for item in self.pictures), key=lambda size: (size.width * size.height, size.width))
        ends = dict.fromkeys(f"{size.width}×{size.height}" for size in sizes[:1] + sizes[-1:])
        counts = Counter(item.source for item in self.pictures)
        by_source = [f"{counts[source]} from {source}" for source in sorted(counts) if source != TEMPLATES]
        text = counted(len(self.pictures), "picture") + (f" ({' to '.join(ends)})" if ends else "")
        text += f", captions: {', '.join([*by_source, f'{counts[TEMPLATES]} from {TEMPLATES}'])}"
        num_masks = sum(item.mask is not None for item in self.pictures)
        text += f", {counted(num_masks, 'mask')}" if num_masks else ""
        return text + (f"; not read: {self._unread_in_words()}" if self.unread else "")

    def _unread_in_words(self) -> str:
        groups = Counter(file.group for file in self.unread if file.group)
        alone = [file.name for file in self.unread if not file.group]
        parts = [counted(count, group) for group, count in sorted(groups.items())]
        return ", ".join([*parts, *([named(alone)] if alone else [])])

    def lines(self) -> Iterator[str]:
        """Yield the account in lines for people, errors last."""
        yield self.summary
        for item in self.pictures:
            texts = " | ".join(map(_in_one_line, item.captions))
            source = f"{item.source}: {texts}" if texts else item.source
            source = source if item.mask is None else f"mask {item.mask.relative_to(self.folder).as_posix()}, {source}"
            yield f"  {_in_one_line(item.file_name)} {item.size.width}×{item.size.height}, {_in_one_line(source)}"
        yield from (f"Not read: {_in_one_line(file.name)}: {_in_one_line(file.reason)}" for file in self.unread)
        yield from (f"Note: {_in_one_line(note)}" for note in self.notes)
        yield from (f"Warning: {_in_one_line(warning)}" for warning in self.warnings)
        yield from (f"Error: {_in_one_line(error)}" for error in self.errors)

    def to_json(self) -> dict[str, Any]:
        """Return the account as JSON values; ``trains`` is true if there is no error."""
        return {
            "folder": str(self.folder),
            "summary": self.summary,
            "pictures": [
                {
                    "file": item.file_name,
                    "width": item.size.width,
                    "height": item.size.height,
                    "source": item.source,
                    "captions": list(item.captions),
                    "copies": list(item.copies),
                    "mask": None if item.mask is None else item.mask.relative_to(self.folder).as_posix(),
                }
                for item in self.pictures
            ],
            "unread": [{"file": file.name, "reason": file.reason} for file in self.unread],
            "notes": list(self.notes),
            "trains": not self.errors,
            "errors": list(self.errors),
            "warnings": list(self.warnings),
        }

    def size_warnings(self, resolution: int, buckets: Sequence[tuple[int, int]] = ()) -> tuple[str, ...]:
        """Say which pictures are enlarged to a width and height in pixels, and which lose more than half of themselves.

        Args:
            resolution: Width and height of the pictures that are trained on.
            buckets: Width and height of every bucket, where pictures are cut to the nearest; then those are enlarged
                whose area is smaller than the square's. None cut all to the square.
        """
        sizes = tuple(buckets) or ((resolution, resolution),)
        small = [
            f"{item.file_name} ({item.size.width}×{item.size.height})"
            for item in self.pictures
            if min(item.size.width, item.size.height) < resolution
            and (not buckets or item.size.width * item.size.height < resolution * resolution)
        ]
        narrow = [item.file_name for item in self.pictures if 2 * _remaining_share(item.size, sizes) < 1]
        texts = []
        if small:
            texts.append(f"{named(small)}: smaller than {resolution}×{resolution}, and enlarged; details are lost")
        if narrow:
            part = "bucket" if buckets else "square"
            texts.append(f"{named(narrow)}: the {part} in the middle leaves out more than half of the picture")
        return tuple(texts)


def _remaining_share(size: PictureSize, sizes: tuple[tuple[int, int], ...]) -> float:
    """Return which share of a picture is left when it is cut to the nearest of some sizes."""
    width, height = bucket_of(size.width, size.height, sizes)
    ratio = (size.width * height) / (size.height * width)
    return min(ratio, 1 / ratio)


def _in_one_line(text: str) -> str:
    """Return a text without breaks of lines; all its other characters stay."""
    return " ".join(line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()) if _BREAKS & {*text} else text


def _about_no_pictures(folder: Path, files: Sequence[FolderFile]) -> str:
    """Say that a folder holds no pictures, and why the first of its other files is none."""
    first = next((file for file in files if file.role == "unread" and not file.group), None)
    return no_pictures(folder) + (f"; {first.name} is not read: {first.reason}" if first else "")


def _measured(files: Iterable[FolderFile]) -> tuple[list[tuple[FolderFile, str, PictureSize]], list[str]]:
    """Return each picture's SHA-256 and size, and why some cannot be read."""
    measured, errors = [], []
    for file in files:
        try:
            size = picture_size(file.path)
            with file.path.open("rb") as stream:
                measured.append((file, hashlib.file_digest(stream, "sha256").hexdigest(), size))
        except (DatasetError, OSError) as error:
            errors.append(str(error))
    return measured, errors


def _once(
    measured: Iterable[tuple[FolderFile, str, PictureSize]], captions: Mapping[str, PictureCaptions]
) -> tuple[FolderPicture, ...]:
    """Return each picture once; the captions of equal files come together."""
    alike: dict[str, list[tuple[FolderFile, PictureSize]]] = {}
    for file, digest, size in measured:
        alike.setdefault(digest, []).append((file, size))
    pictures = []
    for digest, files in alike.items():
        (first, size), names = files[0], [file.name for file, _ in files]
        written = [captions[name] for name in names if name in captions]
        texts = dict.fromkeys(text for item in written for text in item.texts)
        source = written[0].source if written else TEMPLATES
        pictures.append(FolderPicture(first.path, first.name, digest, size, tuple(texts), source, tuple(names[1:])))
    return tuple(pictures)


def _with_masks(pictures: Iterable[FolderPicture], masks: Masks) -> tuple[tuple[FolderPicture, ...], list[str]]:
    """Return the pictures with their masks, and why some masks cannot be used."""
    masked, errors = [], []
    for picture in pictures:
        names = [name for name in (picture.file_name, *picture.copies) if name in masks.paths]
        try:
            several = [_with_mask(picture, masks.paths[name]) for name in names]
            different = {item.mask_digest: item for item in reversed(several)}
            if len(different) > 1:
                raise DatasetError(
                    f"pictures {named(names)} are equal and have {len(different)} different masks; allowed is one"
                )
            masked.append(several[0] if several else picture)
        except (DatasetError, OSError) as error:
            errors.append(str(error))
            masked.append(picture)
    return tuple(masked), errors


def _with_mask(picture: FolderPicture, path: Path) -> FolderPicture:
    size, own = picture_size(path), picture.size
    if (size.width, size.height) != (own.width, own.height):
        raise DatasetError(
            f"mask {path} is {size.width}×{size.height}; allowed is {own.width}×{own.height}, the size of picture "
            f"{picture.file_name}"
        )
    with path.open("rb") as stream:
        return replace(picture, mask=path, mask_digest=hashlib.file_digest(stream, "sha256").hexdigest())


def _copies(pictures: Iterable[FolderPicture], files: Iterable[FolderFile]) -> Iterator[FolderFile]:
    """Yield the files that equal an earlier one."""
    by_name = {file.name: file for file in files}
    for picture in pictures:
        reason = f"equal to {picture.file_name}, which is read once, with the captions of both"
        for name in picture.copies:
            yield replace(by_name[name], role="unread", group="duplicate", reason=reason)


def _notes(pictures: Sequence[FolderPicture], captions: Mapping[str, PictureCaptions]) -> tuple[str, ...]:
    notes, names = [], [item.file_name for item in pictures]
    if several := [item.file_name for item in pictures if item.size.has_more]:
        notes.append(f"{named(several)}: of several frames or pages the first is read")
    notes += [f"folder {name!r}: repeats are not used; each picture counts once" for name in repeating_folders(names)]
    notes += [
        f"folder {name!r}: its pictures are trained on; take it out if they are {meaning}"
        for name, meaning in unclear_folders(names).items()
    ]
    given = {name: captions[name] for name in names if name in captions}
    if listed := [name for name, item in given.items() if _is_list_of_tags(item)]:
        notes.append(
            f"several captions a picture: {named(listed)}; each line is a caption of its own, so tags belong in one "
            "line, with commas between them"
        )
    return tuple(notes)


def _is_list_of_tags(item: PictureCaptions) -> bool:
    """Return True if the captions of a picture are lines of a text, most of them of one or two words."""
    short = sum(len(text.split()) <= _WORDS_OF_A_TAG for text in item.texts)
    is_text = item.source in CAPTION_SUFFIXES and item.source != ".json"
    return is_text and len(item.texts) > 1 and 2 * short > len(item.texts)
