"""Any folder of pictures, ours or a rival's, measured against real pictures of a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.evaluation.intervals import Interval, mean_interval
from orthoplex.evaluation.metrics import (
    NOTHING,
    comparable_references,
    identity_threshold,
    mean_cosine,
    recognised,
    scores,
    shares,
)
from orthoplex.evaluation.picture_encoder import Encoder
from orthoplex.evaluation.pretrained import ClipEncoder
from orthoplex.evaluation.text_alignment import TEXT_PREFIX, text_scores
from orthoplex.files import check_picture_folder, no_pictures, picture_files, read_picture

OWN = "the concept"
"""Name of the concept among the others."""


@dataclass(frozen=True)
class FolderEvaluation:
    """The numbers of a folder of pictures; intervals are 95 % bootstrap intervals over its pictures.

    Attributes:
        encoder: Name of the features.
        num_pictures: Pictures measured.
        num_references: Real pictures of the concept.
        alignment: Mean pairwise cosine of pictures and references.
        alignment_of_references: The same among the references themselves, pairs of one picture left out: what
            pictures as alike as the real ones reach. None for a single reference.
        recognised: Share nearest to the concept's centroid, among the concept and the others; None without others.
        recognised_as: Name -> share of pictures nearest to it; empty without others.
        identity: Share above the threshold that at most 5 % of the impostors pass; without impostors, above the
            encoder's own (`Encoder.identity_cosine`); None where it has none either.
        identity_cosine: The threshold.
        text: Text alignment with the prompt; None without a prompt.
    """

    encoder: str
    num_pictures: int
    num_references: int
    alignment: Interval
    alignment_of_references: float | None
    recognised: Interval | None
    recognised_as: Mapping[str, float]
    identity: Interval | None
    identity_cosine: float | None = None
    text: Interval | None = None


def read_pictures(folder: Path) -> list[Image.Image]:
    """Read all pictures of a folder as RGB, in the order of their names; masks are left out.

    Raises:
        DatasetError: When the folder is missing, holds no picture, or one cannot be read; names it.
    """
    check_picture_folder(folder)
    paths = picture_files(folder)
    if not paths:
        raise DatasetError(no_pictures(folder))
    return [read_picture(path) for path in paths]


def evaluate_folder(
    pictures: Path,
    references: Path,
    *,
    encoder: Encoder,
    others: Mapping[str, Path] | None = None,
    impostors: Sequence[Path] = (),
    prompt: str | None = None,
) -> FolderEvaluation:
    """Measure the pictures of a folder against real pictures of the concept that they should show.

    Args:
        pictures: Folder of the pictures.
        references: Folder of real pictures of the concept.
        encoder: The encoder of all pictures.
        others: Name -> folder of real pictures of another concept of the same kind, for recognition.
        impostors: Folders of pictures that do not show the concept (the base's own, other concepts'), for identity.
        prompt: The text that the pictures should show, with an ordinary word in the concept's place; for `ClipEncoder`.

    Raises:
        DatasetError: When a folder cannot be used; names it.
        ConfigurationError: When another concept is called ``OWN`` or ``NOTHING``, or a prompt is given to an encoder
            of pictures alone.
    """
    for name in (OWN, NOTHING):
        if others and name in others:
            raise ConfigurationError(f"a concept is called {name!r}; allowed are other names")
    if prompt is not None and not isinstance(encoder, ClipEncoder):
        raise ConfigurationError(f"prompt is {prompt!r} with {encoder.name}; allowed: a prompt with the encoder clip")

    def real_pictures(folder: Path) -> Tensor:
        return comparable_references(encoder.encode(read_pictures(folder)), f"folder {folder}")

    shown, real = encoder.encode(read_pictures(pictures)), real_pictures(references)
    galleries = {name: real_pictures(folder) for name, folder in (others or {}).items()}
    impostor_features = [encoder.encode(read_pictures(folder)) for folder in impostors]
    winners = recognised(shown, {OWN: real, **galleries}) if galleries else []
    threshold = encoder.identity_cosine
    if impostor_features:
        threshold = identity_threshold(scores(torch.cat(impostor_features), {OWN: real})[:, 0])
    text = None
    if prompt is not None and isinstance(encoder, ClipEncoder):
        text = _share(text_scores(shown, encoder.encode_texts([TEXT_PREFIX + prompt])))
    return FolderEvaluation(
        encoder=encoder.name,
        num_pictures=len(shown),
        num_references=len(real),
        alignment=_share((shown.double() @ real.double().T).mean(1)),
        alignment_of_references=mean_cosine(real) if len(real) > 1 else None,
        recognised=_share(torch.tensor([name == OWN for name in winners])) if winners else None,
        recognised_as=shares(winners),
        identity=None if threshold is None else _share(scores(shown, {OWN: real})[:, 0] > threshold),
        identity_cosine=threshold,
        text=text,
    )


def _share(values: Tensor) -> Interval:
    """The mean over pictures, `(n,)`, and its interval."""
    return mean_interval(values.double()[:, None])
