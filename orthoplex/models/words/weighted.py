"""Prompts with weights and of any length, read by the library compel.

For a weight w of a token with features z, compel returns ``z_0 + w (z - z_0)``, where z_0 are the features of the empty
prompt at the same position. Where fragments of weights w_i below 1 are in a chunk, it is the mean of this, weighted 1,
and of each of the chunks in which one such fragment is masked, weighted ``tan((1 - w_i) π / 2)``. All of it is linear
in the features, and so holds for wide features (``FeatureBlock``): each layer's features are weighted, and the marks of
tokens with keys and values, so that these are weighted alike.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import MissingExtraError, PromptError
from orthoplex.models.prompts.prompt import Fragment, Prompt
from orthoplex.models.quiet import quiet
from orthoplex.models.words.words import Reader

Chunk = Sequence[Fragment]
_UNIT = re.compile(r"\s*(?:<[^<>\s]+>|\S+?(?=<[^<>\s]+>|\s|$))")
"""A concept's token or a word, with the space before it."""
_ENDS = (".!?。！？", ",;:，；：、")
"""Where a sentence ends, and where a phrase does."""


def chunks_at_once(readers: Sequence[Reader], prompt: Prompt) -> list[Chunk]:
    """Divide the chunks of a prompt into such as all of some text encoders read at once, concepts spelled out.

    A long one is divided after a sentence, else after a phrase, else after a word, else after a letter; a concept's
    tokens stay together. Fragments without any token are left out.

    Args:
        readers: The text encoders with their tokenizers; they get the same chunks.
        prompt: The prompt.

    Raises:
        PromptError: If a concept has more vectors than a text encoder reads.
    """
    return [part for chunk in prompt.chunks for part in _divided(readers, chunk, prompt.key)]


def weighted_features(
    reader: Reader, prompt: Prompt, chunks: Sequence[Chunk], device: torch.device, *, penultimate: bool = False
) -> Tensor:
    """Return a text encoder's last states of a prompt, ``(1, chunks · length, width)``.

    Args:
        reader: The text encoder with its tokenizer.
        prompt: The prompt, for errors.
        chunks: Its chunks, as ``chunks_at_once`` gives them.
        device: Where the text encoder computes, which is not always where its weights are.
        penultimate: True returns the states before the last layer, not normalized, as Stable Diffusion XL reads them.

    Raises:
        MissingExtraError: If compel is not installed.
    """
    with quiet():
        provider = _provider(reader, prompt, device, penultimate=penultimate)
        parts = [
            provider.get_embeddings_for_weighted_prompt_fragments(
                [[fragment.text for fragment in chunk]], [[fragment.weight for fragment in chunk]], device=device
            )
            for chunk in chunks
        ]
    return torch.cat(parts, dim=1)


@final
@dataclass(frozen=True, eq=False)
class _Encoder:
    """A text encoder as compel uses it, with the device on which it computes, wherever its weights wait."""

    network: Any
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    def __call__(self, *arguments: Any, output_hidden_states: bool, return_dict: bool) -> Any:  # noqa: ANN401
        return self.network(*arguments, output_hidden_states=output_hidden_states, return_dict=return_dict)


def _provider(reader: Reader, prompt: Prompt, device: torch.device, *, penultimate: bool) -> Any:  # noqa: ANN401  (compel is imported where it is used)
    try:
        from compel.embeddings_provider import EmbeddingsProvider, ReturnedEmbeddingsType
    except ImportError as error:
        what = rf"{prompt.shown} with weights (a bracket that is text is '\('), BREAK or more words than usual"
        raise MissingExtraError(what, "compel", "prompts") from error
    create: Any = EmbeddingsProvider  # whose annotations name networks and texts alone
    kinds = ReturnedEmbeddingsType
    states = kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if penultimate else kinds.LAST_HIDDEN_STATES_NORMALIZED
    network = _Encoder(reader.network, device)
    return create(reader.tokenizer, network, truncate=False, device=device, returned_embeddings_type=states)


@final
@dataclass(frozen=True)
class _Unit:
    """A word or a concept's tokens, with its weight and the number of its tokens for each text encoder."""

    text: str
    weight: float
    counts: tuple[int, ...]
    end: str


def _divided(readers: Sequence[Reader], chunk: Chunk, key: str) -> Iterator[Chunk]:
    """Yield the parts of a chunk."""
    limits = [reader.length - reader.num_marks for reader in readers]
    units = [
        unit
        for fragment in chunk
        for match in _UNIT.finditer(fragment.text)
        for unit in _units(readers, limits, match[0], fragment.weight, key)
    ]
    first = 0
    while _fitting(units[first:], limits) < len(units) - first:
        fitting = units[first : first + _fitting(units[first:], limits)]
        ends = [max((i for i, unit in enumerate(fitting, 1) if unit.end in letters), default=0) for letters in _ENDS]
        size = next(filter(None, ends), len(fitting))
        yield _joined(fitting[:size])
        first += size
    yield _joined(units[first:])


def _units(readers: Sequence[Reader], limits: Sequence[int], text: str, weight: float, key: str) -> Iterator[_Unit]:
    """Yield a word, in parts if a text encoder cannot read it at once; nothing if it has no tokens."""
    counts, spelled = _counts(readers, text)
    if not any(counts):
        return
    if all(count <= limit for count, limit in zip(counts, limits, strict=True)):
        yield _Unit(spelled, weight, counts, text[-1])
    elif spelled != text:
        raise PromptError(
            f"{key} names '{text.strip()}', which has {max(counts)} tokens; "
            f"the base reads at most {min(limits)} at once"
        )
    elif len(text) == 1:  # a text encoder of no length
        raise PromptError(f"{key} holds '{text}', which has {max(counts)} tokens; the base reads {min(limits)} at once")
    else:
        yield from _units(readers, limits, text[: len(text) // 2], weight, key)
        yield from _units(readers, limits, text[len(text) // 2 :], weight, key)


def _counts(readers: Sequence[Reader], text: str) -> tuple[tuple[int, ...], str]:
    spelled = [reader.spelled_out([text])[0] for reader in readers]
    return tuple(len(reader.words(one)) for reader, one in zip(readers, spelled, strict=True)), spelled[0]


def _fitting(units: Sequence[_Unit], limits: Sequence[int]) -> int:
    """How many of the first units all text encoders read at once."""
    sums = [0] * len(limits)
    for number, unit in enumerate(units):
        sums = [before + count for before, count in zip(sums, unit.counts, strict=True)]
        if any(total > limit for total, limit in zip(sums, limits, strict=True)):
            return number
    return len(units)


def _joined(units: Sequence[_Unit]) -> Chunk:
    """Join neighbours of one weight; no units are the empty prompt."""
    groups = itertools.groupby(units, key=lambda unit: unit.weight)
    return [Fragment("".join(unit.text for unit in group), weight) for weight, group in groups] or [Fragment("")]
