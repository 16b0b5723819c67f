"""The prompts under which a concept's own inputs are gathered."""

from __future__ import annotations

from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.concepts import KINDS, Manifest
from orthoplex.models import Base

NUM_GENERAL = 16
"""General prompts that stand for those of a concept without a trigger."""


def own_prompts(base: Base, manifest: Manifest) -> tuple[str, ...]:
    """Return a concept's own prompts: those of its kind with its trigger in them.

    A LoRA without a trigger acts on every prompt, so its own prompts are the first of the base's foreign ones.

    Args:
        base: The base.
        manifest: The concept's.
    """
    if not manifest.trigger.strip():
        return default_foreign_prompts(base)[:NUM_GENERAL]
    return KINDS[manifest.kind].own_prompts(manifest.trigger)
