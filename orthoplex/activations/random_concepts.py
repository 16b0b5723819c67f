"""Concepts that do not exist: random vectors in the place of a concept's tokens."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.activations.foreign_prompts import ForeignPrompts, compose_foreign_prompts
from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.models import Base, WordSpread


def word_spread(base: Base) -> WordSpread:
    """Measure the embeddings of the words of the base's own prompts."""
    return base.family.words.spread(default_foreign_prompts(base))


def random_vectors(base: Base, words: Sequence[str], *, num_vectors: int, generator: torch.Generator) -> Tensor:
    """Return vectors of concepts that do not exist, ``(len(words), num_vectors, dim)``.

    Each is the embedding of its class word moved by noise of 0.5 to 1.7 times the spread of the base's words, about as
    far as learned tokens move (docs/methods.md); every fourth is drawn from the spread alone.

    Args:
        base: The base.
        words: The class word of each.
        num_vectors: How many vectors a concept has.
        generator: Decides the noise.
    """
    spread, count = word_spread(base), len(words)
    if not words:  # of fewer than four foreign prompts none has a token
        return torch.zeros(0, num_vectors, len(spread.mean))
    centres = {word: base.family.words.class_vector(word).cpu() for word in dict.fromkeys(words)}
    noise = torch.randn(count, num_vectors, len(spread.mean), generator=generator) * spread.deviation
    strength = 0.5 + 1.2 * torch.rand(count, 1, 1, generator=generator)
    vectors = torch.stack([centres[word] for word in words]).unsqueeze(1) + strength * noise
    alone = (torch.arange(count) % 4 == 3).view(-1, 1, 1)
    return torch.where(alone, spread.mean + noise, vectors)


def replaced_vectors(base: Base, tokens: Sequence[str], vectors: Tensor) -> AbstractContextManager[None]:
    """Inside, the text encoder sees ``vectors`` for tokens; gradients flow into them, not the table.

    Args:
        base: The base, whose tokenizer knows the tokens.
        tokens: The names of the k tokens.
        vectors: ``(k, dim)``, ``(n, k, dim)`` for other vectors in every prompt of a batch of n, or, for other vectors
            in every one of L cross-attention layers, ``(n or 1, k, L, dim)``.
    """
    each = vectors.unsqueeze(0) if vectors.ndim == 2 else vectors
    return base.replaced_vectors(tokens, each.unsqueeze(2) if each.ndim == 3 else each)


def foreign_material(
    base: Base,
    options: ErasureOptions,
    *,
    token: str,
    class_word: str,
    prompts: Sequence[str],
    num_vectors: int,
    generator: torch.Generator,
    count: int | None = None,
) -> tuple[ForeignPrompts, Tensor]:
    """Return foreign prompts, and token vectors of concepts that do not exist, ``(count, num_vectors, dim)``.

    These concepts cycle through the class words of the prompts; without any, they have the concept's own.

    Args:
        base: The base.
        options: For the number of prompts.
        token: The concept's token.
        class_word: The concept's class word.
        prompts: Prompts of the base's own words.
        num_vectors: How many vectors a concept has; for 0, no prompt has a token.
        generator: Decides order and noise.
        count: How many concepts; None makes one for each prompt that has a token.

    Raises:
        ConfigurationError: When there are no prompts.
    """
    composed = compose_foreign_prompts(
        options.num_prompts, token=token, class_word=class_word, prompts=prompts, generator=generator
    )
    if num_vectors == 0:
        return replace(composed, tokened=(), words=()), torch.zeros(0, 0, base.family.words.width)
    class_words = composed.words or (class_word,)
    words = [class_words[i % len(class_words)] for i in range(len(composed.words) if count is None else count)]
    return composed, random_vectors(base, words, num_vectors=num_vectors, generator=generator)
