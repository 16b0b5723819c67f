"""The files of a folder of pictures, each with its role."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, final

from orthoplex.errors import DatasetError
from orthoplex.files import PICTURE_SUFFIXES, check_picture_folder, masks_of, one_line, recognised
from orthoplex.training.caption_files import CAPTION_SUFFIXES
from orthoplex.training.caption_tables import TABLE_SUFFIXES

Role = Literal["picture", "mask", "caption", "table", "unread"]

HIDDEN = "hidden or system file"
CACHE = "cache or weight file"
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "__pycache__", "$recycle.bin"}
_CACHE_SUFFIXES = {".npz", ".npy", ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl"}
MASK_FOLDERS = {"mask", "masks"}
_REGULARISATION_FOLDERS = re.compile(
    r"(reg|regulari[sz]ation)([ _-]?(images?|imgs?|data|pictures))?|class[ _-](images?|imgs?|data)"
)
_CONTROL_FOLDERS = {"_controls", "_control"}
"""In which ai-toolkit stores what it computes from the pictures."""
_SAMPLE_FOLDERS = {"sample", "samples", "validation_images"}
_SAMPLE_NAME = re.compile(r"(.*_)?(e?\d{6}|\d{9}|step_\d+)(_.*)?")
"""As kohya's tools (``anna_000100_00_…``), ai-toolkit (``…__000000100_0``) and SimpleTuner (``step_100_…``) write."""
_UNCLEAR_FOLDERS = {
    **dict.fromkeys(_SAMPLE_FOLDERS, "samples of a training"),
    "class": "regularisation pictures",
    **dict.fromkeys(("control", "controls", "conditioning", "conditioning_images"), "control pictures"),
}
"""Names that users give too -> what trainers put there; pictures in them are trained on, with a note."""
_REPEATS = re.compile(r"\d+_.+")
_AS_JPEG = "save it as JPEG or PNG"
_FOREIGN = {
    **dict.fromkeys((".heic", ".heif", ".hif"), f"HEIF pictures are not read; {_AS_JPEG}"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".srw", ".pef", ".raw"),
        f"raw camera data are not read; {_AS_JPEG}",
    ),
    **dict.fromkeys(
        (
            ".psd",
            ".psb",
            ".svg",
            ".ai",
            ".eps",
            ".xcf",
            ".kra",
            ".exr",
            ".jxl",
            ".jp2",
            ".tga",
            ".ico",
            ".ppm",
            ".avif",
        ),
        f"pictures of this format are not read; {_AS_JPEG}",
    ),
    **dict.fromkeys(
        (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".avifs"),
        "films are not read; save single frames as JPEG or PNG",
    ),
    ".parquet": "tables of this format are not read; save it as metadata.csv or metadata.jsonl",
    ".arrow": "tables of this format are not read; save it as metadata.csv or metadata.jsonl",
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "archives are not read; unpack it"),
}


@final
@dataclass(frozen=True)
class FolderFile:
    """A file of a folder, and its role.

    Attributes:
        path: Where it is.
        name: Its path in the folder, with ``/`` between parts.
        role: Its role, by its name.
        group: The name of files of its sort, in the singular; empty for a file that is named alone.
        reason: The reason not to read it; empty if it is read.
    """

    path: Path
    name: str
    role: Role
    group: str = ""
    reason: str = ""


def folder_files(folder: Path) -> list[FolderFile]:
    """Return every file of a folder and of folders in it, in the order of their names; a hidden folder is one.

    Raises:
        DatasetError: When the folder is missing, or is none.
    """
    check_picture_folder(folder)
    paths = sorted(_paths(folder, set()), key=lambda path: path.relative_to(folder).parts)
    masks = masks_of(paths)
    return [_classified(path, path.relative_to(folder).as_posix(), masks) for path in paths]


def holds_pictures(folder: Path) -> bool:
    """Return True if a folder, or a folder in it, holds a picture to train on; False for all that is no folder."""
    return folder.is_dir() and any(file.role == "picture" for file in folder_files(folder))


def counted(count: int, noun: str) -> str:
    """Return "1 mask" or "2 masks"; of "caption without a picture" the first word is the one that is counted."""
    head, separator, rest = noun.partition(" without ")
    return f"{count} {head}{'' if count == 1 else 's'}{separator}{rest}"


def named(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, each in one line, and how many others there are."""
    names = [one_line(name) for name in names]
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} others"


def repeating_folders(names: list[str]) -> list[str]:
    """Return the folders, of files of these names, that kohya's tools would read as repeats: ``10_anna person``."""
    parents = {PurePosixPath(name).parent for name in names}
    return sorted(parent.as_posix() for parent in parents if _REPEATS.fullmatch(parent.name))


def unclear_folders(names: Iterable[str]) -> dict[str, str]:
    """Return the folders, of pictures of these names, that may hold what is not to be trained on, and what that is."""
    parents = {PurePosixPath(name).parent for name in names}
    return {
        folder.as_posix(): _UNCLEAR_FOLDERS[folder.name.lower()]
        for parent in sorted(parents)
        for folder in (parent, *parent.parents)
        if folder.name.lower() in _UNCLEAR_FOLDERS
    }


def _paths(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Yield each file and each hidden folder; a folder that is linked from several places is entered once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = [(path, path.is_dir()) for path in sorted(folder.iterdir())]
    except OSError as error:
        cure = "; allow reading and entering it" if isinstance(error, PermissionError) else ""
        raise DatasetError(f"folder {folder} cannot be read: {error.strerror}{cure}") from error
    for path, is_folder in entries:
        if is_folder and not _is_hidden(path.name):
            yield from _paths(path, seen)
        else:
            yield path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _classified(path: Path, name: str, masks: set[Path]) -> FolderFile:
    *folders, last = (part.lower() for part in PurePosixPath(name).parts)
    suffix = path.suffix.lower()

    def unread(group: str, reason: str) -> FolderFile:
        return FolderFile(path, name, "unread", group, reason)

    if _is_hidden(last):
        return unread(HIDDEN, "hidden files and files of the system are not read")
    if suffix in _CACHE_SUFFIXES or any(part.endswith("_cache") for part in folders):
        return unread(CACHE, "caches and weights are not read")
    if any(part.endswith(".samples") for part in folders) or (
        _SAMPLE_FOLDERS.intersection(folders) and _SAMPLE_NAME.fullmatch(path.stem.lower())
    ):
        group = "sample picture" if suffix in PICTURE_SUFFIXES else "sample file"
        return unread(group, "sample pictures of a training are not used")
    if not path.is_file():
        return unread("", "it is no file that can be read")
    if _CONTROL_FOLDERS.intersection(folders):
        return unread("control picture", "control pictures are not used")
    if any(map(_REGULARISATION_FOLDERS.fullmatch, folders)):
        group = "regularisation picture" if suffix in PICTURE_SUFFIXES else "regularisation file"
        return unread(group, "regularisation pictures are not used")
    if suffix in PICTURE_SUFFIXES:
        if path in masks and path.stem.lower().endswith("-condlabel"):
            return unread("control picture", "control pictures are not used")
        if MASK_FOLDERS.intersection(folders) or path in masks:
            return FolderFile(path, name, "mask")
        return FolderFile(path, name, "picture")
    if suffix in CAPTION_SUFFIXES:
        return FolderFile(path, name, "caption")
    if last.endswith(".log.jsonl"):
        return unread("", "logs of a training are not read")
    if suffix in TABLE_SUFFIXES:
        return FolderFile(path, name, "table")
    return unread("", _FOREIGN.get(suffix) or _by_content(path))


def _by_content(path: Path) -> str:
    """Return the reason not to read a file whose name ends as no picture's, caption's or table's does."""
    try:
        kind = recognised(path)
    except OSError:
        kind = None
    if kind is None or kind.sort not in ("picture", "film"):
        return "it is no picture, caption or table of captions"
    cure = kind.cure or f"let it end with {PICTURE_SUFFIXES[0]}, {PICTURE_SUFFIXES[1]} or the like"
    return f"it is {kind.noun}, but its name ends as no picture's does; {cure}"
