"""The masks of a folder of pictures, each with its picture: where a picture counts, a mask is white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import final

from orthoplex.files import stem_of_picture
from orthoplex.training.folder_files import MASK_FOLDERS, FolderFile, named

_ORPHAN, _UNUSED = "mask without a picture", "unused mask"


@final
@dataclass(frozen=True)
class Masks:
    """All masks of a folder: beside their pictures, or in a folder ``masks`` that mirrors theirs.

    Attributes:
        paths: Name of a picture -> its mask.
        unread: Masks without a picture.
        errors: Pictures of several masks.
        warnings: Masks that are not used.
    """

    paths: dict[str, Path]
    unread: tuple[FolderFile, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @staticmethod
    def among(files: Sequence[FolderFile]) -> Masks:
        """Give every mask among the files of a folder to the pictures of its name; no pixel is read.

        Args:
            files: As ``folder_files`` gives them.
        """
        masks: dict[tuple[str, str], list[FolderFile]] = {}
        for file in files:
            if file.role == "mask":
                masks.setdefault(_place(file.name), []).append(file)
        paths, errors, used = dict[str, Path](), list[str](), set[str]()
        for file in files:
            place = PurePosixPath(file.name)
            keys = {(str(place.parent).lower(), name.lower()) for name in (place.stem, place.name)}
            own = [mask for key in sorted(keys) for mask in masks.get(key, [])] if file.role == "picture" else []
            used |= {mask.name for mask in own}
            if len(own) > 1:
                errors.append(
                    f"picture {file.name} has {len(own)} masks: {named([item.name for item in own])}; allowed is one"
                )
            elif own:
                paths[file.name] = own[0].path
        unread = tuple(
            replace(file, role="unread", group=_ORPHAN, reason="no picture has its name, so it is not used")
            for file in files
            if file.role == "mask" and file.name not in used
        )
        names = [file.name for file in unread]
        warnings = (f"masks without a picture are not used: {named(names)}",) if names else ()
        return Masks(paths, unread, tuple(errors), warnings)

    @staticmethod
    def unread_among(files: Sequence[FolderFile]) -> Masks:
        """Give no picture a mask, and name the masks as files that are not read.

        Args:
            files: As ``folder_files`` gives them.
        """
        reason = "class pictures count as a whole, so their masks are not used"
        masks = (file for file in files if file.role == "mask")
        unread = tuple(replace(file, role="unread", group=_UNUSED, reason=reason) for file in masks)
        return Masks({}, unread, (), ())


def _place(name: str) -> tuple[str, str]:
    """Return the folder and the stem, in small letters, of the picture that a mask of the given name belongs to."""
    path = PurePosixPath(name)
    folders = [part.lower() for part in path.parent.parts]
    for part in MASK_FOLDERS.intersection(folders):
        folders.remove(part)
    return str(PurePosixPath(*folders)), stem_of_picture(path.stem).lower()
