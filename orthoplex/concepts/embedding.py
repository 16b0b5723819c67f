"""A concept's tokens as an embedding, as textual inversion has it."""

from __future__ import annotations

import torch
from torch import Tensor

from orthoplex.concepts.concept import Concept
from orthoplex.concepts.manifest import token_names
from orthoplex.concepts.tokens import TOKENS
from orthoplex.errors import ConfigurationError


def concept_embedding(concept: Concept) -> dict[str, Tensor]:
    """Return the vectors of a concept's tokens, in the order of a prompt: text encoder to ``(k, dim)``, float32.

    Args:
        concept: A concept with one vector a token and text encoder.

    Raises:
        ConfigurationError: If it has no token, or its tokens do more than an embedding holds.
    """
    if not concept.tokens:
        raise ConfigurationError(f"concept {concept.label} has no tokens, allowed for an embedding is at least one")
    for token, item in concept.tokens.items():
        if not item.placement.is_one_vector:
            content = TOKENS[item.kind].description.format(count=len(item.placement.own_layers))
            raise ConfigurationError(
                f"token '{token}' of concept {concept.label} has {content}, which no embedding file holds; allowed are "
                "tokens with one vector for all layers"
            )
    names = token_names(concept.name, len(concept.tokens))
    vectors = [concept.tokens[name].placement.vectors for name in names]
    return {encoder: torch.stack([each[encoder].float() for each in vectors]) for encoder in sorted(vectors[0])}
