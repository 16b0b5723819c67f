"""Real composites to fit readers and heads on, and others, of collections of their own, to measure on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from PIL import Image

from orthoplex.evaluation import Encoder
from pretraining import pictures
from pretraining.captions import full_prompt
from pretraining.checkpoint import save
from pretraining.compose import Factors, compose
from pretraining.readers import PARTS, Features
from pretraining.seeds import MEASURED


def real_features(work: Path, count: int, encoder: Encoder) -> tuple[Features, list[Factors]]:
    """Features and factors of the first `count` real composites; the features are kept in `work`.

    Raises:
        ValueError: When the collection has fewer.
    """
    data, rows = pictures.load(work / "pictures")
    if len(rows) < count:
        raise ValueError(f"{work / 'pictures'} holds {len(rows)} pictures; {count} are asked for")
    data, rows = data[:count], rows[:count]
    key = hashlib.sha256(data.tobytes() + repr((rows, PARTS)).encode()).hexdigest()[:16]
    cache = work / f"features-{encoder.name}-{key}.pt"
    if not cache.exists():
        found = Features.of([Image.fromarray(picture) for picture in data], rows, encoder)
        save(cache, {"whole": found.whole.half(), "halves": found.halves.half()})
    state = torch.load(cache, weights_only=True)
    return Features(state["whole"].float(), state["halves"].float()), rows


def unseen(seed: int, count: int, *, usual: bool = False) -> tuple[list[Image.Image], list[Factors]]:
    """The first composites of a collection that no training has seen, a third of them painted."""
    made = [compose(seed, index, styled=1 / 3, usual=usual) for index in range(count)]
    return [picture for picture, _ in made], [factors for _, factors in made]


def asked(count: int) -> tuple[list[Image.Image], list[Factors], list[bool], list[str]]:
    """Composites that no training has seen, their factors, whether their prompts state sides, and these prompts.

    The prompts name neither places nor drawing families, so the composites have the usual ones.
    """
    shown, rows = unseen(MEASURED, count, usual=True)
    sided = [number % 3 == 0 and len(row.things) == 2 for number, row in enumerate(rows)]
    return shown, rows, sided, [full_prompt(row, sided=stated) for row, stated in zip(rows, sided, strict=True)]
