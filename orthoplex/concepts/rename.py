"""Another name for a concept."""

from __future__ import annotations

from dataclasses import replace

from orthoplex.concepts.concept import Concept
from orthoplex.concepts.manifest import check_name
from orthoplex.errors import ConfigurationError


def renamed(concept: Concept, name: str) -> Concept:
    """Return a concept under another name: its tokens, its trigger and its content hash follow.

    Weights, vectors, slot and inputs stay. So does ``concept_id`` in the manifest's ``training``, from which directions
    and starting vectors were drawn.

    Args:
        concept: The concept.
        name: The new name, ``[a-z0-9_-]{1,64}``.

    Raises:
        ConfigurationError: If the name is not allowed, or the concept has it already.
    """
    check_name(name)
    if name == concept.name:
        raise ConfigurationError(f"concept {concept.label} has the name {name!r} already; allowed is another one")
    before, after = f"<{concept.name}>", f"<{name}>"
    manifest = replace(concept.manifest, name=name, trigger=concept.manifest.trigger.replace(before, after))
    tokens = {token.replace(before, after, 1): item for token, item in concept.tokens.items()}
    return replace(concept, manifest=manifest, tokens=tokens)
