"""Vectors to numbers: pure functions on unit feature rows; no model, no file.

Throughout, a matrix of features is `(n, d)` with rows of length 1, as `Encoder.encode` gives them. A row of zeros is a
picture without features (no face in it): it is never recognised nor identified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from orthoplex.errors import ConfigurationError, DatasetError

NOTHING = "nothing found"
"""The name that a picture without features is recognised as."""


def has_features(rows: Tensor) -> Tensor:
    """Return True for every picture with features, `(n,)` bool; a row of zeros is a picture without."""
    return rows.ne(0).any(dim=1)


def comparable_references(rows: Tensor, subject: str) -> Tensor:
    """Return the rows of real pictures that have features.

    Args:
        rows: `(n, d)`.
        subject: The name of the pictures in the error.

    Raises:
        DatasetError: when no picture has features.
    """
    with_features = rows[has_features(rows)]
    if len(rows) and not len(with_features):
        raise DatasetError(
            f"{subject}: the encoder found nothing to compare in any of {len(rows)} pictures; allowed: some"
        )
    return with_features


def image_alignment(pictures: Tensor, references: Tensor) -> float:
    """Mean pairwise cosine between pictures and references: `1/(nm) * sum_ij <p_i, q_j>`.

    Args:
        pictures: `(n, d)` unit rows.
        references: `(m, d)` unit rows.

    Returns:
        A number in [-1, 1].

    Raises:
        ConfigurationError: when either is empty or the widths differ.

    Source: Gu et al., "Mix-of-Show", NeurIPS 2023, section 4 (with CLIP features there).
    """
    _check_pair(pictures, references)
    return float((pictures.double() @ references.double().T).mean())


def mean_cosine(pictures: Tensor) -> float:
    """Mean cosine between different pictures of one set: `1/(n(n-1)) * sum_{i != j} <p_i, p_j>`.

    Args:
        pictures: `(n, d)` unit rows.

    Raises:
        ConfigurationError: when there are fewer than two.
    """
    count = len(pictures)
    if count < 2:
        raise ConfigurationError(f"the mean cosine among {count} pictures was asked for; allowed: 2 or more")
    cosines = pictures.double() @ pictures.double().T
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def scores(pictures: Tensor, gallery: Mapping[str, Tensor]) -> Tensor:
    """Return the likeness of each picture to each concept of a gallery.

    The score is the cosine to the unit centroid of the concept's references, `<p, c/|c|>`, `c = mean_j q_j`.

    Args:
        pictures: `(n, d)` unit rows.
        gallery: Name -> `(m, d)` unit rows, in the order of the columns.

    Returns:
        `(n, len(gallery))` float64; minus infinity for a picture without features.

    Raises:
        ConfigurationError: for an empty gallery, an empty entry or different widths.
    """
    if not gallery:
        raise ConfigurationError("the gallery is empty; allowed: one concept or more")
    columns = []
    for references in gallery.values():
        _check_pair(pictures, references)
        columns.append(pictures.double() @ normalize(references.double().mean(dim=0), dim=0))
    return torch.stack(columns, dim=1).masked_fill(~has_features(pictures)[:, None], -torch.inf)


def recognised(pictures: Tensor, gallery: Mapping[str, Tensor]) -> list[str]:
    """The gallery's name that each picture looks most like (see `scores`); ties go to the earlier name.

    A picture without features is recognised as `NOTHING`.

    Args:
        pictures: `(n, d)` unit rows.
        gallery: Name -> `(m, d)` unit rows: the concepts of one kind, and impostors under names of their own.

    Returns:
        n names.
    """
    names = list(gallery)
    best = scores(pictures, gallery).max(dim=1)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [NOTHING if value == -torch.inf else names[index] for value, index in pairs]


def recognised_rate(pictures: Tensor, gallery: Mapping[str, Tensor], concept: str) -> float:
    """Share of pictures that are recognised as `concept` (see `recognised`).

    Raises:
        ConfigurationError: when `concept` is not in the gallery, or there are no pictures.
    """
    if concept not in gallery:
        raise ConfigurationError(f"concept {concept!r} is not in the gallery; allowed: {', '.join(gallery)}")
    winners = recognised(pictures, gallery)
    return winners.count(concept) / len(winners)


def shares(winners: Sequence[str]) -> dict[str, float]:
    """Name -> its share of the winners that `recognised` gave, in the order in which they first occur."""
    return {name: winners.count(name) / len(winners) for name in dict.fromkeys(winners)}


def identity_threshold(impostors: Tensor, *, false_positive_rate: float = 0.05) -> float:
    """The score above which a picture counts as the concept: at most `false_positive_rate` of the impostors exceed it.

    With the impostors' scores sorted descending `s_1 >= s_2 >= ...` and `k = floor(rate * n)`, the threshold is
    `s_{k+1}`: a picture passes when its score is strictly larger, which k impostors do at most.

    Args:
        impostors: `(n,)` scores of pictures that do not show the concept.
        false_positive_rate: In [0, 1).

    Raises:
        ConfigurationError: for no impostors or a rate outside [0, 1).
    """
    if impostors.numel() == 0:
        raise ConfigurationError("there are 0 impostor scores; allowed: 1 or more")
    if not 0.0 <= false_positive_rate < 1.0:
        raise ConfigurationError(f"false_positive_rate is {false_positive_rate}; allowed: 0 <= rate < 1")
    descending = impostors.double().flatten().sort(descending=True).values
    return float(descending[int(false_positive_rate * len(descending) + 1e-9)])


def identity_rate(pictures: Tensor, references: Tensor, threshold: float) -> float:
    """Share of pictures whose cosine to the references' unit centroid is larger than `threshold`."""
    return float((scores(pictures, {"": references})[:, 0] > threshold).double().mean())


def _check_pair(pictures: Tensor, references: Tensor) -> None:
    for name, rows in (("pictures", pictures), ("references", references)):
        if rows.ndim != 2 or len(rows) == 0:
            raise ConfigurationError(f"{name} have the shape {tuple(rows.shape)}; allowed: (n, d) with n of 1 or more")
    if pictures.shape[1] != references.shape[1]:
        raise ConfigurationError(
            f"pictures have {pictures.shape[1]} features and references {references.shape[1]}; allowed: the same number"
        )
