"""Folders of pictures: their pictures, without masks, and the lines of folders that are none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from orthoplex.errors import DatasetError
from orthoplex.files.picture_reading import PICTURE_SUFFIXES

_LABEL = re.compile(r"(?P<stem>.+)-(?:masklabel|condlabel)$", re.IGNORECASE)
_LONGEST_NAME = 60
_OWN_MASK = re.compile(r"(?P<stem>.+)[-_.]masks?$", re.IGNORECASE)


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of their names, without masks, hidden files, and folders in it."""
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    masks = masks_of(paths)
    return [path for path in paths if path not in masks]


def masks_of(paths: Iterable[Path]) -> set[Path]:
    """Return the masks among files: labels of OneTrainer's, and pictures that are named after a picture beside them."""
    pictures = [path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES]
    stems = {(path.parent, path.stem.lower()) for path in pictures}
    masks = set[Path]()
    for path in pictures:
        match = _OWN_MASK.fullmatch(path.stem)
        if _LABEL.fullmatch(path.stem) or (match is not None and (path.parent, match["stem"].lower()) in stems):
            masks.add(path)
    return masks


def stem_of_picture(stem: str) -> str:
    """Return the stem of the picture that a mask of the given stem belongs to: ``a`` of ``a-mask``, or of ``a``."""
    match = _LABEL.fullmatch(stem) or _OWN_MASK.fullmatch(stem)
    return stem if match is None else match["stem"]


def check_picture_folder(folder: Path) -> None:
    """Refuse a path that is no folder.

    Raises:
        DatasetError: When it is a file, or is not there.
    """
    try:
        is_file, is_folder = folder.is_file(), folder.is_dir()
    except OSError as error:
        raise DatasetError(f"folder {str(folder)[:_LONGEST_NAME]} cannot be read: {error.strerror}") from error
    if is_file:
        if folder.suffix.lower() in PICTURE_SUFFIXES:
            raise DatasetError(f"{folder} is a picture; give its folder {folder.parent}")
        raise DatasetError(f"{folder} is a file; allowed is a folder of pictures")
    if not is_folder:
        raise DatasetError(f"folder {folder} does not exist; allowed is a folder of pictures")


def no_pictures(folder: Path) -> str:
    """Return the line of a folder without pictures."""
    return f"folder {folder} holds no pictures; allowed are {', '.join(PICTURE_SUFFIXES)}"
