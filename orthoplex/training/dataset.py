"""A folder of pictures and captions, ready for training."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from orthoplex.concepts import KINDS, kind_of
from orthoplex.errors import DatasetError
from orthoplex.files import read_picture
from orthoplex.models import with_words
from orthoplex.training.data_folder import DataFolder
from orthoplex.training.learned_captions import caption_warnings, captions_of

_LOG = logging.getLogger(__name__)
CLASS_WORD_LIMIT = 64


@dataclass(frozen=True, eq=False)
class Picture:
    """One training picture.

    Attributes:
        file_name: Its name in the folder.
        pixels: ``(3, height, width)`` uint8 RGB.
        captions: Its possible captions, with the trigger; one is drawn at every use.
    """

    file_name: str
    pixels: Tensor
    captions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ConceptDataset:
    """The pictures of one concept.

    Attributes:
        pictures: In order of their file names.
        token: ``<name>``.
        class_word: The ordinary word for what it is.
        trigger: Its name in captions: ``<name>`` or ``<name> class_word``.
        kind: One of ``orthoplex.concepts.KINDS``.
        resolution: Width and height of the pictures, in pixels.
        dataset_hash: SHA-256 (hex) over files, captions, trigger and resolution.
        word: The rare word that stands in the place of the token; empty where the token itself is learned.
    """

    pictures: tuple[Picture, ...]
    token: str
    class_word: str
    trigger: str
    kind: str
    resolution: int
    dataset_hash: str
    word: str = ""

    @staticmethod
    def from_folder(
        folder: str | Path | DataFolder,
        *,
        resolution: int,
        token: str,
        class_word: str,
        kind: str | None = None,
        trigger_form: Literal["token", "token class"] = "token class",
    ) -> "ConceptDataset":
        """Read pictures: upright, RGB, resized and cropped at the centre to a square.

        Captions come from the file of the same stem beside a picture, each line one, else from a table of captions,
        else from the kind; one is drawn at every use. Placeholders in a caption become the trigger
        (``insert_trigger``); in a caption with none of them the trigger takes the place of the class word, else it is
        put in front. Notes and warnings of the account are logged.

        Args:
            folder: The folder, with the folders in it; or its account.
            resolution: Width and height in pixels.
            token: ``<name>``.
            class_word: The ordinary word for what it is, for example ``"person"``.
            kind: One of ``orthoplex.concepts.KINDS``; None takes the one that the class word says.
            trigger_form: The form of the trigger: the token alone, or the token and the class word.

        Raises:
            DatasetError: When the folder is missing or holds no picture, a picture or caption is damaged, or an
                argument is not allowed; names the file.
        """
        kind = kind_of(class_word) if kind is None else kind
        check_arguments(token, class_word, kind, resolution)
        account = folder if isinstance(folder, DataFolder) else DataFolder.scan(folder)
        account.check()
        trigger = token if trigger_form == "token" else f"{token} {class_word}"
        pictures = tuple(
            Picture(
                file_name=item.file_name,
                pixels=load_picture(item.path, resolution, item.digest),
                captions=captions_of(item, token=token, class_word=class_word, trigger=trigger, kind=kind),
            )
            for item in account.pictures
        )
        captions = {item.file_name: item.captions for item in pictures}
        notices = (*account.notes, *account.warnings, *account.size_warnings(resolution))
        for notice in (*notices, *caption_warnings(captions, token)):
            _LOG.warning("%s", notice)
        digests = [item.digest for item in account.pictures]
        return ConceptDataset(
            pictures=pictures,
            token=token,
            class_word=class_word,
            trigger=trigger,
            kind=kind,
            resolution=resolution,
            dataset_hash=_hash(pictures, digests, (token, class_word, trigger, kind, resolution)),
        )

    @property
    def mention(self) -> str:
        """What names the concept in captions: its rare word or its token."""
        return self.word or self.token

    def called(self, word: str) -> "ConceptDataset":
        """Return the same pictures with a rare word in the place of the token, in captions and trigger.

        Args:
            word: A word of the base's own vocabulary.
        """
        pictures = tuple(
            replace(item, captions=tuple(with_words(caption, {self.token[1:-1]: word}) for caption in item.captions))
            for item in self.pictures
        )
        return replace(self, pictures=pictures, trigger=self.trigger.replace(self.token, word), word=word)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)

    def pixels(self) -> Tensor:
        """All pictures, ``(n, 3, resolution, resolution)`` float32 in [-1, 1]."""
        return torch.stack([picture.pixels for picture in self.pictures]).float() / 127.5 - 1.0

    @property
    def captions(self) -> tuple[str, ...]:
        """Every different caption, sorted."""
        return tuple(sorted({caption for picture in self.pictures for caption in picture.captions}))

    def image(self, index: int) -> Image.Image:
        """The picture at ``index`` as it is trained on."""
        return Image.fromarray(self.pictures[index].pixels.permute(1, 2, 0).numpy())


def check_arguments(token: str, class_word: str, kind: str, resolution: int) -> None:
    """Refuse a token, class word, kind or resolution that is not allowed.

    Raises:
        DatasetError: Names the argument, its value and what is allowed.
    """
    if not re.fullmatch(r"<[a-z0-9_-]{1,64}>", token):
        raise DatasetError(f"token is {token!r}; allowed is <name> with lower-case letters, digits, '_' and '-'")
    if not class_word.strip() or not class_word.isprintable():
        raise DatasetError(f"class_word is {class_word!r}; allowed is a word such as 'person'")
    if len(class_word) > CLASS_WORD_LIMIT or set(class_word) & set("<>"):
        raise DatasetError(
            f"class_word is {class_word!r}; allowed are up to {CLASS_WORD_LIMIT} characters without '<' and '>'"
        )
    if kind not in KINDS:
        raise DatasetError(f"kind is {kind!r}; allowed are {', '.join(KINDS)}")
    if resolution < 1:
        raise DatasetError(f"resolution is {resolution}; allowed are whole numbers from 1")


def load_picture(path: Path, resolution: int, digest: str | None = None) -> Tensor:
    """Return a picture as ``(3, resolution, resolution)`` uint8, its middle, as ``read_picture`` reads it.

    Args:
        path: The file.
        resolution: Width and height of the result, in pixels.
        digest: SHA-256 (hex) that the file must have; None for any.

    Raises:
        DatasetError: When it cannot be read, or has another digest.
    """
    image = ImageOps.fit(read_picture(path, digest), (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def _hash(pictures: tuple[Picture, ...], contents: list[str], arguments: tuple[str | int, ...]) -> str:
    listing = [[item.file_name, digest, list(item.captions)] for item, digest in zip(pictures, contents, strict=True)]
    return hashlib.sha256(json.dumps([listing, list(arguments)]).encode()).hexdigest()
