"""Readers of pictures: linear heads on a frozen encoder that no training ever saw, fitted on real composites.

Whole pictures are read for scene and style, pictures of one thing for its class and subject. Of two things the left and
the right part are read apart: a thing is found in a part when its score there passes a threshold that at most one real
picture in twenty without that thing passes in any part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orthoplex.evaluation import Encoder, LinearHead, fit_linear_head, identity_threshold, mean_interval
from pretraining.compose import SIZE, Factors

WEIGHT_DECAYS = (1e-6, 1e-5, 1e-4, 1e-3)
PLAIN, PERSON = "no style", "person"
FACTORS = ("class", "subject", "scene", "style")
#: what is shown of a set of pictures at a glance
SHOWN = (*FACTORS, "both found")
#: the left and the right part of a picture, in pixels; every thing of a pair lies in one of them
PARTS = ((0, 24, 80, SIZE), (48, 24, SIZE, SIZE))


def accuracy(right: np.ndarray) -> dict[str, float]:
    """Share of ones among 0 or 1 per picture, its 95 % bootstrap interval, and the number of pictures."""
    found = mean_interval(torch.from_numpy(right)[:, None])
    return {"accuracy": found.value, "low": found.low, "high": found.high, "pictures": len(right)}


def truth(factors: Factors) -> dict[str, str | None]:
    """The names the heads should read; None where a picture has no such factor or more than one."""
    only = factors.things[0] if len(factors.things) == 1 else None
    return {
        "class": only.class_word if only else None,
        "subject": only.subject if only else None,
        "scene": factors.scene,
        "style": factors.style or PLAIN,
    }


def pair(factors: Factors) -> tuple[str, str] | None:
    """The two things from left to right, people as `PERSON`; None where there are not two."""
    if len(factors.things) != 2:
        return None
    left, right = (thing.subject or PERSON for thing in factors.things)
    return left, right


def parts(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """All left parts, then all right parts."""
    return [picture.crop(box) for box in PARTS for picture in pictures]


@dataclass(frozen=True, eq=False)
class Features:
    """What the encoder says about pictures: whole (n, d), and parts (2, m, d) of those with two things."""

    whole: Tensor
    halves: Tensor

    @staticmethod
    def of(pictures: Sequence[Image.Image], rows: Sequence[Factors], encoder: Encoder) -> Features:
        """Encode pictures and, where their factors name two things, their parts."""
        pairs = [picture for picture, row in zip(pictures, rows, strict=True) if pair(row)]
        return Features(encoder.encode(pictures), encoder.encode(parts(pairs)).unflatten(0, (2, -1)))

    def take(self, kept: Sequence[int], rows: Sequence[Factors]) -> Features:
        """Those of the pictures numbered `kept`; `rows` are the factors of all."""
        numbers = [number for number, row in enumerate(rows) if pair(row)]
        pairs = [numbers.index(number) for number in kept if pair(rows[number])]
        return Features(self.whole[list(kept)], self.halves[:, pairs])


def glance(right: dict[str, np.ndarray]) -> dict[str, float]:
    """The shares of ones in what is shown at a glance, of what `Readers.right` found."""
    return {name: float(right[name].mean()) for name in SHOWN}


@dataclass(frozen=True, eq=False)
class Readers:
    """Heads per factor, one for a part of a picture, and its thresholds (one per name)."""

    heads: dict[str, LinearHead]
    part: LinearHead
    thresholds: Tensor

    def part_scores(self, halves: Tensor) -> Tensor:
        """(2, m, d) -> (2, m, names): log-probability of every name in either part."""
        return torch.stack([self.part.logits(half).log_softmax(1) for half in halves])

    def found(self, halves: Tensor, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        """Whether the things of each pair are found left and right, as named, and whether the other way round."""
        passed = self.part_scores(halves) > self.thresholds
        columns = [[self.part.classes.index(name) for name in names] for names in pairs]
        left, right = torch.tensor(columns, dtype=torch.long).reshape(-1, 2).T
        each = torch.arange(len(pairs))
        as_named = passed[0, each, left] & passed[1, each, right]
        exchanged = passed[0, each, right] & passed[1, each, left]
        return as_named.numpy(), exchanged.numpy()

    def right(self, features: Features, rows: Sequence[Factors]) -> dict[str, np.ndarray]:
        """0 or 1 per picture that has the factor.

        Two things count where each is found in a part of its own (`both found`), or is its best name (`both named`), in
        either order; `found by chance` asks each picture for the things of the next one.
        """
        out = {}
        for name, head in self.heads.items():
            names = [truth(row)[name] for row in rows]
            keep = [i for i, value in enumerate(names) if value is not None]
            guesses = head.predict(features.whole[keep])
            out[name] = np.array([guess == names[i] for guess, i in zip(guesses, keep, strict=True)], dtype=float)
        pairs = [names for names in map(pair, rows) if names]
        best = zip(*(self.part.predict(half) for half in features.halves), strict=True)
        out["both found"] = np.logical_or(*self.found(features.halves, pairs)).astype(float)
        out["both named"] = np.array([sorted(a) == sorted(b) for a, b in zip(best, pairs, strict=True)], dtype=float)
        out["found by chance"] = np.logical_or(*self.found(features.halves, pairs[1:] + pairs[:1])).astype(float)
        return out


def fit_head(features: Tensor, names: Sequence[str], encoder: str) -> LinearHead:
    """The head of the weight decay that reads the last fifth best when fitted on the others, fitted on all.

    Names that the first four fifths lack count as misread.
    """
    fitted, classes = len(names) * 4 // 5, sorted(set(names))

    def fit(rows: slice, weight_decay: float) -> LinearHead:
        told = names[rows]
        return fit_linear_head(features[rows], told, encoder=encoder, classes=classes, weight_decay=weight_decay)

    unseen = slice(fitted, None)
    best = max(WEIGHT_DECAYS, key=lambda decay: fit(slice(0, fitted), decay).accuracy(features[unseen], names[unseen]))
    return fit(slice(None), best)


def fit_readers(features: Features, rows: Sequence[Factors], encoder: str) -> Readers:
    """Fit every head on the pictures that have its factor; thresholds on the last fifth of pairs, kept from the fit."""
    heads = {}
    for name in FACTORS:
        names = [truth(row)[name] for row in rows]
        keep = [i for i, value in enumerate(names) if value is not None]
        heads[name] = fit_head(features.whole[keep], [str(names[i]) for i in keep], encoder)
    pairs = [found for found in map(pair, rows) if found]
    fitted = len(pairs) * 4 // 5
    # the two things of a pair one after the other, so that a part of the rows is a part of the pairs
    told = [names[side] for names in pairs[:fitted] for side in (0, 1)]
    part = fit_head(features.halves[:, :fitted].transpose(0, 1).flatten(0, 1), told, encoder)
    readers = Readers(heads, part, torch.zeros(len(part.classes)))
    scores = readers.part_scores(features.halves[:, fitted:]).amax(0)
    thresholds = [
        identity_threshold(scores[[name not in names for names in pairs[fitted:]], column])
        for column, name in enumerate(part.classes)
    ]
    return Readers(heads, part, torch.tensor(thresholds))
