"""The prompts of the base's own words that ship with it: what erasure and data-aware merges take for foreign."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from orthoplex.files import write_text
from pretraining.captions import caption
from pretraining.compose import Factors

COUNT = 400


def foreign_prompts(rows: Sequence[Factors], count: int = COUNT) -> list[str]:
    """Different captions, none of them empty, of pictures of at most two things, in the collection's order.

    Raises:
        ValueError: When the collection is too small for so many.
    """
    rng = random.Random(0)
    read = [row for row in rows[: 10 * count] if len(row.things) <= 2]
    texts = dict.fromkeys(caption(row, rng) for row in read)
    texts.pop("", None)
    if len(texts) < count:
        raise ValueError(f"{len(read)} pictures have {len(texts)} different captions; {count} are asked for")
    return list(texts)[:count]


def write(rows: Sequence[Factors], file: Path) -> None:
    """Write them, one a line."""
    write_text(file, "\n".join(foreign_prompts(rows)) + "\n")
