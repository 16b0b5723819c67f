"""The verdict on a folder of pictures: what a training would learn of it, and whether it would start."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orthoplex.activations import insert_trigger
from orthoplex.concepts import kind_of
from orthoplex.errors import DatasetError
from orthoplex.files import read_picture
from orthoplex.training.data_folder import DataFolder, FolderPicture
from orthoplex.training.dataset import load_mask
from orthoplex.training.learned_captions import caption_fit, caption_warnings, captions_of

if TYPE_CHECKING:
    from orthoplex.models import Base

_ANY_TOKEN = "<name>"
"""Stands for the concept where no token is given."""


def checked_folder(
    account: DataFolder,
    *,
    token: str | None = None,
    class_word: str | None = None,
    base: Base | None = None,
    num_vectors: int = 2,
) -> DataFolder:
    """Return the account of a folder with all that a training would find: pictures are decoded, captions measured.

    Pictures that cannot be decoded, and captions that a training on the base refuses, are among its ``errors``.

    Args:
        account: The account of ``DataFolder.scan``.
        token: ``<name>``; with the class word, the captions of the result are those that are learned.
        class_word: The ordinary word for the concept.
        base: The base; without it neither its resolution nor the length of its texts is known, and masks are looked at
            in the square of the short side.
        num_vectors: The number of the concept's token vectors.
    """
    pictures, errors = list[FolderPicture](), list(account.errors)
    for picture in account.pictures:
        try:
            read_picture(picture.path, picture.digest)
            side = min(picture.size.width, picture.size.height) if base is None else base.family.resolution
            load_mask(picture, (side, side))
            pictures.append(picture)
        except DatasetError as error:
            errors.append(str(error))
    learned = [replace(picture, captions=_captions(picture, token, class_word)) for picture in pictures]
    captions = {picture.file_name: picture.captions for picture in learned}
    warnings = [*account.warnings, *caption_warnings(captions, token)]
    if base is not None:
        fit = caption_fit(base, captions, token or _ANY_TOKEN, num_vectors)
        sizes = replace(account, pictures=tuple(pictures)).size_warnings(base.family.resolution)
        errors, warnings = [*errors, *fit.errors], [*warnings, *sizes, *fit.warnings]
    shown = learned if token and class_word else pictures
    return replace(account, pictures=tuple(shown), errors=tuple(errors), warnings=tuple(warnings))


def _captions(picture: FolderPicture, token: str | None, class_word: str | None) -> tuple[str, ...]:
    """Return the captions as they are learned; without a name, the token of any concept is in them."""
    if token is not None and class_word is not None:
        kind = kind_of(class_word)
        return captions_of(picture, token=token, class_word=class_word, trigger=f"{token} {class_word}", kind=kind)
    words = {"token": _ANY_TOKEN, "class_word": _ANY_TOKEN, "trigger": _ANY_TOKEN}
    return tuple(insert_trigger(text, **words) for text in picture.captions)
