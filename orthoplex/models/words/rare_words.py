"""Rare words of a base's own vocabulary, for concepts without token vectors."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from orthoplex.errors import ConfigurationError
from orthoplex.models.words.words import Reader

_WORD = re.compile(r"[a-z]{2,5}")
_WITHIN = ("a photo of {} person", "a person, {}, a photo", "a person in {}.")
_AT_START = "{} person"
"""Texts in which a rare word shall be one token; byte-level vocabularies have other tokens at the start of a text."""
_LOOKED_AT = 4096
_POOL = 1024
"""So many of the rarest words are chosen from: few would be the same for many concepts."""


def rare_word(readers: Sequence[Reader], concept_id: str, avoided: Iterable[str]) -> str:
    """Return the rare word of a concept: one token in every tokenizer, and always the same.

    The rarest words of a vocabulary are its last ones. The hash of the concept's id and the word decides among them.

    Args:
        readers: The base's text encoders.
        concept_id: The concept's id.
        avoided: Texts whose words are not taken.

    Raises:
        ConfigurationError: If no word of the vocabulary is left.
    """
    taken = {word for text in (*avoided, *_WITHIN) for word in re.findall(r"[a-z]+", text.lower())}
    tables = [_own_words(reader.tokenizer) for reader in readers]
    shared = set(tables[0]).intersection(*tables[1:]) - taken
    rarest = sorted(shared, key=lambda word: (-min(table[word].place for table in tables), word))[:_LOOKED_AT]
    for place in _WITHIN:
        rarest = _single(readers, tables, rarest, place)
    rarest = _single(readers, tables, rarest, _AT_START) or rarest
    if not rarest:
        raise ConfigurationError(
            "token_vectors is 'rare word', and no word of 2 to 5 letters is one token in every tokenizer of the base "
            "and stands in no caption and foreign prompt; allowed is a base with such a word"
        )
    return min(rarest[:_POOL], key=lambda word: hashlib.sha256(f"rare word {concept_id} {word}".encode()).digest())


@final
@dataclass(frozen=True)
class _OwnWord:
    """A word of a vocabulary.

    Attributes:
        place: Its place: 0 for the first, nearly 1 for the last.
        numbers: The tokens that are it, with a space in front or without.
    """

    place: float
    numbers: frozenset[int]


def _own_words(tokenizer: Any) -> dict[str, _OwnWord]:  # noqa: ANN401  (a tokenizer of transformers)
    """The words of a vocabulary, without tokens that were added to it."""
    added = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    vocabulary, numbers = tokenizer.get_vocab(), defaultdict[str, set[int]](set)
    for token, number in vocabulary.items():
        word = token.removesuffix("</w>").lstrip("Ġ▁")
        if token not in added and _WORD.fullmatch(word):
            numbers[word].add(number)
    return {word: _OwnWord(min(of) / len(vocabulary), frozenset(of)) for word, of in numbers.items()}


def _single(
    readers: Sequence[Reader], tables: Sequence[dict[str, _OwnWord]], words: Sequence[str], place: str
) -> list[str]:
    """The words that are one token of every tokenizer in a text."""
    single = list(words)
    for reader, table in zip(readers, tables, strict=True):
        texts = reader.words([place.format(word) for word in single]) if single else []
        single = [word for word, ids in zip(single, texts, strict=True) if not table[word].numbers.isdisjoint(ids)]
    return single
