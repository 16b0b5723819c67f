"""A concept whose text encoders have a strength of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from orthoplex.concepts.concept import Concept
from orthoplex.concepts.layer_table import component_of


def with_part_strengths(
    concept: Concept, strength: float, text_strength: float, text_encoders: Collection[str]
) -> tuple[Concept, float]:
    """Return a concept, and a strength, at which its text encoders have another strength than all other layers.

    The text encoders' changes are scaled by ``text_strength / strength``; at strength 0, what is left of the concept is
    the text encoders' part. Tokens are the same at every strength.

    Args:
        concept: The concept.
        strength: That of all layers but the text encoders'.
        text_strength: That of the text encoders' layers.
        text_encoders: The components that read prompts.
    """
    if strength == text_strength:
        return concept, strength
    of_text = {layer: change for layer, change in concept.layers.items() if component_of(layer) in text_encoders}
    others = {layer: change for layer, change in concept.layers.items() if layer not in of_text}
    if strength == 0:
        return replace(concept, layers=of_text), text_strength
    scaled = (
        {layer: change.scaled(text_strength / strength) for layer, change in of_text.items()} if text_strength else {}
    )
    return replace(concept, layers={**others, **scaled}), strength
