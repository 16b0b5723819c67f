r"""The one reader of prompts: concepts, weights and chunks, written as AUTOMATIC1111's program writes them.

``(words)`` weighs 1.1, ``[words]`` 1 / 1.1, ``(words:1.4)`` 1.4, and nested brackets multiply. ``\(`` is a bracket that
is text. A bracket that is never closed reaches to the end. ``BREAK`` begins a new chunk.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from orthoplex.errors import PromptError
from orthoplex.generation.foreign_syntax import check_foreign_syntax
from orthoplex.generation.prompt_tokens import (
    check_spelling,
    concept_names,
    contract_prompt,
    expand_prompt,
    named_concepts,
    without_concepts,
)
from orthoplex.models import Fragment, WeightedText

ROUND, SQUARE = 1.1, 1 / 1.1
HIGHEST_WEIGHT = 100.0
_PIECE = re.compile(
    r"\\(?P<escaped>[()\[\]\\])|(?P<stray>\\)|(?P<open>[(\[])|:\s*(?P<weight>[+-]?[.0-9]+)\s*\)|(?P<close>[)\]])"
    r"|[^\\()\[\]:]+|:"
)
_BREAK = re.compile(r"\s*(?<![\w-])BREAK(?![\w-])\s*")


@final
@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood.

    Attributes:
        written: The prompt of the user.
        chunks: Fragments with their weights; ``<name>`` stands for all vectors of a concept.
        concepts: The names of the concepts that it calls, sorted.
        key: What it is called in errors.
    """

    written: str
    chunks: tuple[tuple[Fragment, ...], ...]
    concepts: tuple[str, ...]
    key: str = "prompt"

    @property
    def is_plain(self) -> bool:
        """True if it has one chunk and no weights: a pipeline reads ``text`` itself."""
        return len(self.chunks) == 1 and all(fragment.weight == 1 for fragment in self.chunks[0])

    @property
    def text(self) -> str:
        """All words, a space between chunks."""
        return self.weighted.text

    @property
    def weighted(self) -> WeightedText:
        """The prompt as a family reads it."""
        return WeightedText(self.chunks)


def read_prompt(text: str, tokens: Sequence[str], *, absent: Sequence[str] = (), key: str = "prompt") -> Prompt:
    """Read a prompt.

    Args:
        text: The prompt of the user.
        tokens: The concept tokens that the base knows now.
        absent: Names of concepts at strength 0, which are left out.
        key: What the prompt is called in errors.

    Raises:
        PromptError: If it is no text, names a concept that is not loaded or not in full, has a weight that is not
            allowed, or holds syntax of another program; says what to write instead.
    """
    _check_text(text, key)
    check_foreign_syntax(text, concept_names(tokens), key)
    check_spelling(text, tokens, absent=absent, key=key)
    present = without_concepts(text, absent)
    expand_prompt(present, tokens)
    contracted = contract_prompt(present, tokens)
    return Prompt(text, _chunks(contracted, key), named_concepts(contracted), key)


def _check_text(text: str, key: str) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{key} is {text!r}, allowed is one text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"{key} {text!r} is no UTF-8: {error}") from error


def _chunks(text: str, key: str) -> tuple[tuple[Fragment, ...], ...]:
    """Read brackets and BREAK; chunks without words are left out."""
    words: list[str] = []
    weights: list[float] = []
    borders: list[int] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(first: int, weight: float) -> None:
        weights[first:] = [before * weight for before in weights[first:]]

    for piece in _PIECE.finditer(text):
        if piece["open"]:
            opened[piece["open"]].append(len(words))
        elif piece["weight"] and opened["("]:
            weigh(opened["("].pop(), _number(piece["weight"], key))
        elif piece["close"] == ")" and opened["("]:
            weigh(opened["("].pop(), ROUND)
        elif piece["close"] == "]" and opened["["]:
            weigh(opened["["].pop(), SQUARE)
        else:
            parts = [piece["escaped"] or ""] if piece[0].startswith("\\") else _BREAK.split(piece[0])
            borders += range(len(words) + 1, len(words) + len(parts))
            words += parts
            weights += [1.0] * len(parts)
    for bracket, weight in (("(", ROUND), ("[", SQUARE)):
        for first in opened[bracket]:
            weigh(first, weight)
    ends = [0, *borders, len(words)]
    chunks = [_joined(words[i:j], weights[i:j], key) for i, j in itertools.pairwise(ends)]
    return tuple(chunk for chunk in chunks if "".join(fragment.text for fragment in chunk).strip()) or ((),)


def _number(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PromptError(f"{key} has the weight '{text}', which is no number; write it as in (word:1.2)") from error


def _joined(words: Sequence[str], weights: Sequence[float], key: str) -> tuple[Fragment, ...]:
    """Join neighbours of one weight."""
    rounded = [round(weight, 6) for weight in weights]  # [(word)] is 1.1 / 1.1
    joined = []
    pairs = [(text, weight) for text, weight in zip(words, rounded, strict=True) if text]
    for weight, group in itertools.groupby(pairs, key=lambda pair: pair[1]):
        text = "".join(part for part, _ in group)
        if not (math.isfinite(weight) and 0 <= weight <= HIGHEST_WEIGHT):
            raise PromptError(
                f"{key} weighs '{' '.join(text.split())}' by {weight:g}; allowed are weights from 0 to "
                f"{HIGHEST_WEIGHT:g}, and negative_prompt for what shall not be there"
            )
        joined.append(Fragment(text, weight))
    return tuple(joined)
