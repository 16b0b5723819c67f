"""Prompts with weights and of any length, read by the library compel.

For a weight w of a token with features z, compel returns ``z_0 + w (z - z_0)``, where z_0 are the features of the empty
prompt at the same position. Weights below 1 are blended with features of the prompt without these words besides. All of
it is linear in the features, and so holds for wide features (``FeatureBlock``): each layer's features are weighted, and
the marks of tokens with keys and values, so that these are weighted alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import MissingExtraError, PromptError
from orthoplex.models.quiet import quiet
from orthoplex.models.words.words import Reader

_UNIT = re.compile(r"\s*(?:<[^<>\s]*>|[^\s<]+|<)")
"""A concept's token or a word, with the space before it."""
_FURTHER = re.compile(r"<[a-z0-9_-]{1,64}>_[1-9][0-9]*")
"""The second vector of a concept, and all after it."""


@final
@dataclass(frozen=True)
class Fragment:
    """A part of a prompt.

    Attributes:
        text: Words; ``<name>`` stands for all vectors of a concept.
        weight: How strongly they are heard, from 0; 1 is as usual.
    """

    text: str
    weight: float = 1.0


@final
@dataclass(frozen=True)
class WeightedText:
    """A prompt that a text encoder reads in one or more chunks.

    Attributes:
        chunks: The fragments of each chunk. A chunk may be longer than the encoder reads: it is divided further.
    """

    chunks: tuple[tuple[Fragment, ...], ...]

    @property
    def text(self) -> str:
        """All words, for messages."""
        return " ".join("".join(fragment.text for fragment in chunk) for chunk in self.chunks)


def weighted_features(reader: Reader, text: WeightedText) -> Tensor:
    """Return a text encoder's last states of a prompt, ``(1, chunks · length, width)``.

    Long chunks are divided after a sentence, else after a phrase, else after a word; a concept's tokens stay together.

    Args:
        reader: The text encoder with its tokenizer.
        text: The prompt.

    Raises:
        MissingExtraError: If compel is not installed.
        PromptError: If a concept has more vectors than the encoder reads.
    """
    with quiet():
        provider = _provider(reader, text)
        device = reader.network.device
        parts = []
        for chunk in text.chunks:
            for part in _uncut(reader, provider, chunk):
                texts, weights = _apart(part)
                parts.append(provider.get_embeddings_for_weighted_prompt_fragments([texts], [weights], device=device))
    return torch.cat(parts, dim=1)


def _provider(reader: Reader, text: WeightedText) -> Any:  # noqa: ANN401  (compel is imported where it is used)
    try:
        from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode
    except ImportError as error:
        words = " ".join(text.text.split())
        what = rf"prompt '{words}' with weights (a bracket that is text is '\('), BREAK or more words than usual"
        raise MissingExtraError(what, "compel", "prompts") from error
    return EmbeddingsProvider(
        reader.tokenizer,
        reader.network,
        truncate=False,
        device=reader.network.device,
        split_long_text_mode=SplitLongTextMode.SENTENCES,  # the default of the class Compel
    )


def _uncut(reader: Reader, provider: Any, chunk: Sequence[Fragment]) -> Iterator[Sequence[Fragment]]:  # noqa: ANN401
    """Yield a chunk with concepts spelled out, in parts that need no border if compel's would cut a concept's tokens.

    Fragments without any token are left out, which compel does not expect.
    """
    spelled = [Fragment(reader.spelled_out([fragment.text])[0], fragment.weight) for fragment in chunk]
    whole = [fragment for fragment in spelled if reader.words(fragment.text)] or [Fragment("")]
    numbers, _, _ = provider.get_token_ids_and_expand_weights(*_apart(whole), device="cpu")
    firsts = numbers.view(-1, reader.length)[1:, 1].tolist()  # behind the mark of the beginning
    if any(_FURTHER.fullmatch(token) for token in reader.tokenizer.convert_ids_to_tokens(firsts)):
        yield from _divided(reader, chunk)
    else:
        yield whole


def _divided(reader: Reader, chunk: Sequence[Fragment]) -> Iterator[Sequence[Fragment]]:
    """Yield a chunk in parts that the encoder reads at once, divided between words."""
    limit, length = reader.length - reader.num_marks, 0
    part: list[Fragment] = []
    for fragment in chunk:
        for unit in _UNIT.findall(fragment.text):
            (text,) = reader.spelled_out([unit])
            count = len(reader.words(text))
            if count > limit and text != unit:
                raise PromptError(
                    f"prompt names '{unit.strip()}', which has {count} tokens; the base reads at most {limit} at once"
                )
            if part and length + count > limit:
                yield part
                part, length = [], 0
            if count == 0:
                continue
            if part and part[-1].weight == fragment.weight:
                text = part.pop().text + text
            part.append(Fragment(text, fragment.weight))
            length += count
    yield part


def _apart(fragments: Sequence[Fragment]) -> tuple[list[str], list[float]]:
    """Texts and weights, as compel takes them."""
    return [fragment.text for fragment in fragments], [fragment.weight for fragment in fragments]
