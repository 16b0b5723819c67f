"""The vectors from which the tokens of a concept start."""

import torch
from torch import Tensor

from orthoplex.activations.random_concepts import word_spread
from orthoplex.models import Base
from orthoplex.training.config import TokenStart


def initial_vectors(
    base: Base, class_word: str, num_vectors: int, generator: torch.Generator, *, start: TokenStart = "class word"
) -> Tensor:
    """Return the starting token vectors, ``(num_vectors, dim)``.

    Each is the class word's embedding; those after the first add noise a tenth as large as the spread of the base's
    words, so that they can grow apart. Or, as rare words, each is drawn from that spread, or all but the last, which
    then is the class word's embedding.
    """
    spread = word_spread(base)
    vectors = base.family.words.class_vector(class_word).cpu().repeat(num_vectors, 1)
    noise = spread.deviation * torch.randn(vectors.shape, generator=generator)
    if start != "class word":
        rare = spread.mean + noise
        return rare if start == "rare word" else torch.cat([rare[:-1], vectors[-1:]])
    noise[0] = 0.0
    return vectors + 0.1 * noise
