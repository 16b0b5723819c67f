r"""The one reader of prompts: concepts, weights and chunks, written as AUTOMATIC1111's program writes them.

``(words)`` weighs 1.1, ``[words]`` 1 / 1.1, ``(words:1.4)`` 1.4, and nested brackets multiply. A backslash makes text
of the word or sign behind it. A bracket that is never closed reaches to the end. ``BREAK`` begins a new chunk.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from orthoplex.errors import PromptError
from orthoplex.models.prompts.foreign_syntax import check_foreign_syntax
from orthoplex.models.prompts.prompt_tokens import (
    check_names,
    check_spelling,
    concept_names,
    contract_prompt,
    named_concepts,
    with_words,
    without_concepts,
)
from orthoplex.models.prompts.weight_slips import HIGHEST_WEIGHT, TEXT_BRACKET, check_weights

ROUND, SQUARE = 1.1, 1 / 1.1
_PIECE = re.compile(
    r"\\(?P<escaped>\w+|.?)|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*\)|(?P<close>[)\]])"
    r"|[^\\()\[\]:]+|:",
    re.DOTALL,
)
_BREAK = re.compile(r"\s*(?<![\w-])BREAK(?![\w-])\s*")
_TO_ESCAPE = re.compile(r"<[^<>\s]*>|(?P<letter>[^\w\s]|\b[A-Z_])")
"""Tokens, and letters with which syntax may begin."""


@final
@dataclass(frozen=True)
class Fragment:
    """A part of a prompt.

    Attributes:
        text: Words; ``<name>`` stands for all vectors of a concept.
        weight: The factor of their features' distance from those of no words, from 0; 1 is as usual.
    """

    text: str
    weight: float = 1.0


@final
@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood.

    Attributes:
        written: The prompt of the user.
        chunks: Fragments with their weights. A chunk may be longer than a text encoder reads: it is divided further.
        concepts: The names of the concepts that it calls, sorted.
        key: What it is called in errors.
    """

    written: str
    chunks: tuple[tuple[Fragment, ...], ...]
    concepts: tuple[str, ...] = ()
    key: str = "prompt"

    @property
    def is_plain(self) -> bool:
        """True if it has one chunk and no weights: a pipeline reads ``text`` itself."""
        return len(self.chunks) == 1 and all(fragment.weight == 1 for fragment in self.chunks[0])

    @property
    def text(self) -> str:
        """All words, a space between chunks."""
        return " ".join("".join(fragment.text for fragment in chunk) for chunk in self.chunks)

    @property
    def shown(self) -> str:
        """What it is called in errors, and what the user wrote, in one line."""
        return f"{self.key} '{' '.join(self.written.split())}'"


def read_prompt(
    text: str,
    tokens: Sequence[str],
    *,
    absent: Sequence[str] = (),
    words: Mapping[str, str] | None = None,
    key: str = "prompt",
) -> Prompt:
    """Read a prompt.

    Args:
        text: The prompt of the user.
        tokens: The concept tokens that the base knows now.
        absent: Names of concepts at strength 0, which are left out.
        words: Names of concepts without tokens to the rare words that are read in their place.
        key: What the prompt is called in errors.

    Raises:
        PromptError: If it is no text, names a concept that is not loaded or not in full, has a weight that is not
            allowed or not written as one, or holds syntax of another program; says what to write instead.
    """
    _check_text(text, key)
    words = words or {}
    known = (*tokens, *(f"<{name}>" for name in words))
    check_foreign_syntax(text, concept_names(known), key)
    check_spelling(text, known, absent=absent, key=key)
    check_weights(text, key)
    contracted = contract_prompt(without_concepts(text, absent), tokens)
    check_names(contracted, known, key)
    return Prompt(text, _chunks(with_words(contracted, words), key), named_concepts(contracted), key)


def escaped(text: str) -> str:
    """Return text, such as a trigger, as a part of a prompt in which only ``<name>`` has a meaning.

    Args:
        text: Any text.
    """
    return _TO_ESCAPE.sub(lambda match: "\\" + match[0] if match["letter"] else match[0], text)


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
            weigh(opened["("].pop(), float(piece["weight"]))
        elif piece["close"] == ")" and opened["("]:
            weigh(opened["("].pop(), ROUND)
        elif piece["close"] == "]" and opened["["]:
            weigh(opened["["].pop(), SQUARE)
        else:
            parts = _BREAK.split(piece[0]) if piece["escaped"] is None else [piece["escaped"]]
            borders += range(len(words) + 1, len(words) + len(parts))
            words += parts
            weights += [1.0] * len(parts)
    for bracket, weight in (("(", ROUND), ("[", SQUARE)):
        for first in opened[bracket]:
            weigh(first, weight)
    ends = [0, *borders, len(words)]
    chunks = [_joined(words[i:j], weights[i:j], key) for i, j in itertools.pairwise(ends)]
    return tuple(chunk for chunk in chunks if "".join(fragment.text for fragment in chunk).strip()) or ((),)


def _joined(words: Sequence[str], weights: Sequence[float], key: str) -> tuple[Fragment, ...]:
    """Join neighbours of one weight."""
    rounded = [round(weight, 6) for weight in weights]  # [(word)] is 1.1 / 1.1
    joined = []
    pairs = [(text, weight) for text, weight in zip(words, rounded, strict=True) if text]
    for weight, group in itertools.groupby(pairs, key=lambda pair: pair[1]):
        text = "".join(part for part, _ in group)
        if not (math.isfinite(weight) and 0 <= weight <= HIGHEST_WEIGHT):
            cure = "pass the words as the negative prompt" if weight < 0 else "write a smaller one"
            raise PromptError(
                f"{key} weighs '{' '.join(text.split())}' by {weight:g}; allowed are weights from 0 to "
                f"{HIGHEST_WEIGHT:g}; {cure}, or {TEXT_BRACKET}"
            )
        joined.append(Fragment(text, weight))
    return tuple(joined)
