"""A folder of pictures and captions, ready for training."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from orthoplex.activations.captions import with_article, without_trigger
from orthoplex.concepts import KINDS, kind_of
from orthoplex.errors import DatasetError
from orthoplex.files import read_alpha, read_mask, read_picture
from orthoplex.models import ItemSizes, with_words
from orthoplex.training.buckets import bucket_of, bucket_sizes, bucket_step, sizes_of
from orthoplex.training.data_folder import DataFolder, FolderPicture
from orthoplex.training.folder_files import named
from orthoplex.training.learned_captions import caption_warnings, captions_of

_LOG = logging.getLogger(__name__)
CLASS_WORD_LIMIT = 64


@dataclass(frozen=True, eq=False)
class Picture:
    """One training picture.

    Attributes:
        file_name: Its name in the folder.
        pixels: ``(3, height, width)`` uint8 RGB.
        sizes: Its size in the file, and what was cut off.
        captions: Its possible captions, with the trigger; one is drawn at every use.
        mask: ``(height, width)`` uint8, white where the picture counts; None if all of it does.
    """

    file_name: str
    pixels: Tensor
    captions: tuple[str, ...]
    sizes: ItemSizes
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ConceptDataset:
    """The pictures of one concept.

    Attributes:
        pictures: In order of their file names.
        token: ``<name>``.
        class_word: The ordinary word for what it is.
        trigger: Its name in captions: ``<name>`` or ``<name> class_word``.
        kind: One of ``orthoplex.concepts.KINDS``.
        resolution: Width and height of the pictures, in pixels; with buckets, those of a square of their area.
        dataset_hash: SHA-256 (hex) over files, captions, masks, trigger and resolution.
        word: The rare word that stands in the place of the token; empty where the token itself is learned.
        has_buckets: True if pictures keep their shape.
        class_pictures: Pictures without the concept, for prior preservation; each has one caption.
    """

    pictures: tuple[Picture, ...]
    token: str
    class_word: str
    trigger: str
    kind: str
    resolution: int
    dataset_hash: str
    word: str = ""
    has_buckets: bool = False
    class_pictures: tuple[Picture, ...] = ()

    @staticmethod
    def from_folder(
        folder: str | Path | DataFolder,
        *,
        resolution: int,
        token: str,
        class_word: str,
        kind: str | None = None,
        trigger_form: Literal["token", "token class"] = "token class",
        side_multiple: int | None = None,
    ) -> "ConceptDataset":
        """Read pictures: upright, RGB, resized and cropped at the centre to a square, or to a bucket.

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
            side_multiple: The number of which the sides of pictures are multiples that go to the bucket of their shape
                (``models.side_multiple``); None cuts all of them to a square.

        Raises:
            DatasetError: When the folder is missing or holds no picture, a picture or caption is damaged, or an
                argument is not allowed; names the file.
        """
        kind = kind_of(class_word) if kind is None else kind
        check_arguments(token, class_word, kind, resolution)
        account = folder if isinstance(folder, DataFolder) else DataFolder.scan(folder)
        account.check()
        trigger = token if trigger_form == "token" else f"{token} {class_word}"
        buckets = ((resolution, resolution),)
        if side_multiple is not None:
            buckets = bucket_sizes(resolution, bucket_step(resolution, side_multiple))
        words = {"token": token, "class_word": class_word, "trigger": trigger, "kind": kind}
        captions = [captions_of(item, **words) for item in account.pictures]
        size_warnings = account.size_warnings(resolution, () if side_multiple is None else buckets)
        pictures = _loaded(account, captions, buckets, token, size_warnings)
        shapes = () if side_multiple is None else (f"buckets {side_multiple}",)
        digests = [_digests(item, picture) for item, picture in zip(account.pictures, pictures, strict=True)]
        return ConceptDataset(
            pictures=pictures,
            token=token,
            class_word=class_word,
            trigger=trigger,
            kind=kind,
            resolution=resolution,
            dataset_hash=_hash(pictures, digests, (token, class_word, trigger, kind, resolution, *shapes)),
            has_buckets=side_multiple is not None,
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

    def with_class_pictures(self, folder: str | Path | DataFolder) -> "ConceptDataset":
        """Return the data set with a folder of pictures of the class, for prior preservation.

        They are cut to squares, and all of each counts: masks and transparency are not read. A picture without a
        caption has ``a photo of`` and the class word, and in a caption the class word stands in the place of the token
        and of placeholders. Notes and warnings of the account are logged.

        Args:
            folder: The folder; or its account, ``DataFolder.scan(folder, with_masks=False)``.

        Raises:
            DatasetError: When the folder is missing or holds no picture, or a picture or caption is damaged.
        """
        account = folder if isinstance(folder, DataFolder) else DataFolder.scan(folder, with_masks=False)
        account.check()
        plain, square = f"a photo of {with_article(self.class_word)}", ((self.resolution, self.resolution),)
        words = {"token": self.token, "class_word": self.class_word}
        captions = [
            (without_trigger(item.captions[0], **words) if item.captions else plain,) for item in account.pictures
        ]
        warnings = account.size_warnings(self.resolution)
        if several := [item.file_name for item in account.pictures if len(item.captions) > 1]:
            warnings += (f"{named(several)}: of several captions the first is read",)
        pictures = _loaded(account, captions, square, self.token, warnings, of_class=True)
        hashed = _hash(pictures, [item.digest for item in account.pictures], (self.dataset_hash,))
        return replace(self, class_pictures=pictures, dataset_hash=hashed)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)

    def in_buckets(self) -> tuple[tuple[int, ...], ...]:
        """Return the numbers of the pictures of every size; without buckets all have one."""
        buckets: dict[tuple[int, ...], list[int]] = {}
        for number, picture in enumerate(self.pictures):
            buckets.setdefault(tuple(picture.pixels.shape), []).append(number)
        return tuple(tuple(buckets[shape]) for shape in sorted(buckets))

    def pixels(self, numbers: Sequence[int] | None = None) -> Tensor:
        """Return pictures of one size, ``(n, 3, height, width)`` float32 in [-1, 1].

        Args:
            numbers: Which; None for all.
        """
        return pixels_of(self._chosen(numbers))

    def masks(self, numbers: Sequence[int] | None = None) -> Tensor | None:
        """Return masks of one size, ``(n, 1, height, width)`` in [0, 1], 1 where pictures count; None without masks.

        Args:
            numbers: Of which pictures; None for all.
        """
        if not self.num_masks:
            return None
        chosen = self._chosen(numbers)
        masks = [torch.full_like(item.pixels[0], 255) if item.mask is None else item.mask for item in chosen]
        return torch.stack(masks)[:, None].float() / 255.0

    def _chosen(self, numbers: Sequence[int] | None) -> Sequence[Picture]:
        return self.pictures if numbers is None else [self.pictures[number] for number in numbers]

    @property
    def num_masks(self) -> int:
        """The number of pictures that have a mask."""
        return sum(picture.mask is not None for picture in self.pictures)

    @property
    def captions(self) -> tuple[str, ...]:
        """Every different caption, sorted."""
        return tuple(sorted({caption for picture in self.pictures for caption in picture.captions}))

    def image(self, index: int) -> Image.Image:
        """The picture at ``index`` as it is trained on."""
        return Image.fromarray(self.pictures[index].pixels.permute(1, 2, 0).numpy())


def pixels_of(pictures: Sequence[Picture]) -> Tensor:
    """Return pictures of one size, ``(n, 3, height, width)`` float32 in [-1, 1]."""
    return torch.stack([picture.pixels for picture in pictures]).float() / 127.5 - 1.0


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


def fitted(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Return the middle of an RGB picture, scaled, as ``(3, height, width)`` uint8.

    Args:
        image: The picture.
        size: Width and height of the result, in pixels.
    """
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def _loaded(
    account: DataFolder,
    captions: Sequence[tuple[str, ...]],
    buckets: tuple[tuple[int, int], ...],
    token: str,
    size_warnings: Sequence[str],
    *,
    of_class: bool = False,
) -> tuple[Picture, ...]:
    """Read the pictures of a folder, those of a class without masks, and log what is to be said of them."""
    pictures = []
    for item, texts in zip(account.pictures, captions, strict=True):
        image = read_picture(item.path, item.digest)
        size = bucket_of(image.width, image.height, buckets)
        mask = None if of_class else load_mask(item, size)
        pictures.append(Picture(item.file_name, fitted(image, size), texts, sizes_of(image, size), mask))
    of_captions = caption_warnings({item.file_name: item.captions for item in pictures}, token)
    for notice in (*account.notes, *account.warnings, *size_warnings, *of_captions):
        _LOG.warning("%s%s", "class pictures: " if of_class else "", notice)
    return tuple(pictures)


def load_mask(picture: FolderPicture, size: tuple[int, int]) -> Tensor | None:
    """Return where a picture counts, ``(height, width)`` uint8: its mask, else its opacity; None if all of it does.

    It is cut and scaled as the picture is.

    Args:
        picture: The picture, with its mask.
        size: Width and height of the result, in pixels.

    Raises:
        DatasetError: When the mask cannot be read, or is black in all of the part that is trained on.
    """
    if picture.mask is None:
        grey, name = read_alpha(picture.path, picture.digest), f"picture {picture.path} is transparent"
    else:
        grey, name = read_mask(picture.mask, picture.mask_digest), f"mask {picture.mask} is black"
    if grey is None:
        return None
    mask = np.asarray(ImageOps.fit(grey, size, Image.Resampling.BOX)).copy()
    if not mask.any():
        raise DatasetError(f"{name} in all of the part that is trained on; allowed are masks with white in them")
    return torch.from_numpy(mask)


def _digests(item: FolderPicture, picture: Picture) -> str:
    """Return the digests of a picture and its mask; of a picture alone they are those of earlier versions."""
    return item.digest if picture.mask is None else f"{item.digest} {item.mask_digest or 'alpha'}"


def _hash(pictures: tuple[Picture, ...], contents: list[str], arguments: tuple[str | int, ...]) -> str:
    listing = [[item.file_name, digest, list(item.captions)] for item, digest in zip(pictures, contents, strict=True)]
    return hashlib.sha256(json.dumps([listing, list(arguments)]).encode()).hexdigest()
