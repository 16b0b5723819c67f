"""A concept whose text encoders have a strength of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from orthoplex.adapters import LowRank
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.layer_table import component_of
from orthoplex.errors import ConfigurationError


def with_part_strengths(
    concept: Concept, strength: float, text_strength: float, text_encoders: Collection[str]
) -> tuple[Concept, float]:
    """Return a concept, and a strength, at which its text encoders have another strength than all other layers.

    The text encoders' changes are scaled by ``text_strength / strength``, in float32 whatever their type is. At
    strength 0, what is left of the concept is the text encoders' part. Tokens are the same at every strength.

    Args:
        concept: The concept.
        strength: That of all layers but the text encoders'.
        text_strength: That of the text encoders' layers.
        text_encoders: The components that read prompts.

    Raises:
        ConfigurationError: When the strengths lie so far apart that numbers would no longer be finite.
    """
    if strength == text_strength:
        return concept, strength
    of_text = {layer: change for layer, change in concept.layers.items() if component_of(layer) in text_encoders}
    others = {layer: change for layer, change in concept.layers.items() if layer not in of_text}
    if strength == 0:
        return replace(concept, layers=of_text), text_strength
    scaled = {layer: _scaled(change, text_strength / strength) for layer, change in of_text.items() if text_strength}
    if not all(bool(change.up.isfinite().all()) for change in scaled.values()):
        raise ConfigurationError(
            f"strengths of {concept.label} are {strength:g} and, for text encoders, {text_strength:g}, which lie too "
            f"far apart; for no effect besides the text encoders', give 0 instead of {strength:g}"
        )
    return replace(concept, layers={**others, **scaled}), strength


def _scaled(change: LowRank, factor: float) -> LowRank:
    return LowRank(change.up.float() * factor, change.down.float())
