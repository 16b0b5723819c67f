"""A folder of pictures and captions, ready for training."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from orthoplex.activations.captions import insert_trigger
from orthoplex.concepts import KINDS, kind_of
from orthoplex.errors import DatasetError
from orthoplex.files import PICTURE_SUFFIXES, picture_files, read_picture

CLASS_WORD_LIMIT = 64
_NO_CAPTION = {"license", "licence", "readme", "notice", "attribution", "credits"}


@dataclass(frozen=True)
class CaptionRow:
    """A line of ``metadata.jsonl``: its number, from 1, the picture's file name and the caption."""

    number: int
    file_name: str
    text: str


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
        trigger: What the captions call it: ``<name>`` or ``<name> class_word``.
        kind: One of ``orthoplex.concepts.KINDS``.
        resolution: Width and height of the pictures, in pixels.
        dataset_hash: SHA-256 (hex) over files, captions, trigger and resolution.
    """

    pictures: tuple[Picture, ...]
    token: str
    class_word: str
    trigger: str
    kind: str
    resolution: int
    dataset_hash: str

    @staticmethod
    def from_folder(
        folder: str | Path,
        *,
        resolution: int,
        token: str,
        class_word: str,
        kind: str | None = None,
        trigger_form: Literal["token", "token class"] = "token class",
    ) -> "ConceptDataset":
        """Read PNG, JPEG and WebP pictures: upright by EXIF, RGB, resized and cropped at the centre to a square.

        Captions come from the ``.txt`` file of the same stem, else from ``metadata.jsonl`` (``file_name``, ``text``),
        else from the kind. ``{trigger}``, ``<name>`` and ``TOKEN`` in a caption become the trigger;
        in a caption with none of them the trigger takes the place of the class word, else it is put in front.

        Args:
            folder: The folder; folders inside it are not searched.
            resolution: Width and height in pixels.
            token: ``<name>``.
            class_word: The ordinary word for what it is, for example ``"person"``.
            kind: One of ``orthoplex.concepts.KINDS``; None takes the one that the class word says.
            trigger_form: What the trigger is: the token alone, or the token and the class word.

        Raises:
            DatasetError: When the folder is missing or empty, a picture is unreadable or there twice, a caption belongs
                to no picture, or an argument is not allowed; names the file.
        """
        kind = kind_of(class_word) if kind is None else kind
        _check_arguments(token, class_word, kind, resolution)
        folder = Path(folder)
        if not folder.is_dir():
            raise DatasetError(f"folder {folder} does not exist; allowed is a folder of pictures")
        paths = picture_files(folder)
        if not paths:
            raise DatasetError(f"folder {folder} holds no pictures; allowed are {', '.join(PICTURE_SUFFIXES)}")
        contents = _read_all(folder, paths)
        written = _read_captions(folder, [path.name for path in paths])
        trigger = token if trigger_form == "token" else f"{token} {class_word}"
        templates = tuple(template.format(trigger=trigger) for template in KINDS[kind].captions)
        pictures = tuple(
            Picture(
                file_name=path.name,
                pixels=load_picture(path, resolution),
                captions=(insert_trigger(written[path.name], token=token, class_word=class_word, trigger=trigger),)
                if path.name in written
                else templates,
            )
            for path in paths
        )
        return ConceptDataset(
            pictures=pictures,
            token=token,
            class_word=class_word,
            trigger=trigger,
            kind=kind,
            resolution=resolution,
            dataset_hash=_hash(pictures, contents, (token, class_word, trigger, kind, resolution)),
        )

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


def load_picture(path: Path, resolution: int) -> Tensor:
    """Return a picture as ``(3, resolution, resolution)`` uint8, its middle, as ``read_picture`` reads it.

    Raises:
        DatasetError: When it cannot be read.
    """
    image = ImageOps.fit(read_picture(path), (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def _check_arguments(token: str, class_word: str, kind: str, resolution: int) -> None:
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


def _read_all(folder: Path, paths: list[Path]) -> list[str]:
    """Return each file's SHA-256, refusing equal stems and equal files."""
    stems: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for path in paths:
        if path.stem in stems:
            raise DatasetError(
                f"folder {folder} holds {stems[path.stem]} and {path.name}; allowed is one picture of each stem"
            )
        stems[path.stem] = path.name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in hashes:
            raise DatasetError(f"folder {folder}: {path.name} is a duplicate of {hashes[digest]}; allowed is each once")
        hashes[digest] = path.name
    return list(hashes)


def _read_captions(folder: Path, names: list[str]) -> dict[str, str]:
    captions = _read_metadata(folder / "metadata.jsonl", names)
    by_stem = {Path(name).stem: name for name in names}
    for path in sorted(folder.glob("*.txt")):
        if path.stem.lower() in _NO_CAPTION:
            continue
        if path.stem not in by_stem:
            raise DatasetError(f"caption {path} belongs to no picture; allowed are the stems of pictures")
        captions[by_stem[path.stem]] = _read_text(path)
    return captions


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; allowed is UTF-8 text") from error


def read_caption_table(path: Path) -> list[CaptionRow]:
    """The rows of a ``metadata.jsonl``; none when there is no such file.

    Raises:
        DatasetError: When it is no UTF-8 text, or a line is not what is allowed; names the line.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, text = entry["file_name"], entry["text"]
            if not isinstance(name, str) or not isinstance(text, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetError(
                f'{path} line {number} cannot be read; allowed is {{"file_name": …, "text": …}} with two texts'
            ) from error
        rows.append(CaptionRow(number, name, text))
    return rows


def _read_metadata(path: Path, names: list[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    for row in read_caption_table(path):
        name = row.file_name
        if name not in names:
            raise DatasetError(f"{path} line {row.number}: picture {name!r} does not exist in the folder")
        if name in captions:
            raise DatasetError(f"{path} line {row.number}: picture {name!r} has a duplicate caption; allowed is one")
        captions[name] = row.text
    return captions


def _hash(pictures: tuple[Picture, ...], contents: list[str], arguments: tuple[str | int, ...]) -> str:
    listing = [[item.file_name, digest, list(item.captions)] for item, digest in zip(pictures, contents, strict=True)]
    return hashlib.sha256(json.dumps([listing, list(arguments)]).encode()).hexdigest()
