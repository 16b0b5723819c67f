"""The parts of a change that engines read: its base, its concepts, and one stack for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orthoplex.concepts import BaseIdentity, Stack
from orthoplex.errors import BaseModelError
from orthoplex.models.folding import Foldable


@dataclass(frozen=True)
class Owner:
    """A concept of a change.

    Attributes:
        content_hash: Its content hash, by which stacks name it.
        name: Its name.
        strength: Its strength in the change.
    """

    content_hash: str
    name: str
    strength: float


def owners_of(recipe: Mapping[str, Any]) -> tuple[Owner, ...]:
    """Return the concepts that are in a change; those that were merged at strength 0 are not in it."""
    return tuple(
        Owner(concept["content_hash"], concept["name"], concept["strength"])
        for concept in recipe.get("concepts", ())
        if concept["strength"] * recipe.get("scale", 1.0) != 0
    )


def concept_names(recipe: Mapping[str, Any]) -> list[str]:
    """Return the names of all concepts that a recipe lists, also of those at strength 0."""
    return [concept["name"] for concept in recipe.get("concepts", ())]


def stacks_of(change: Foldable) -> dict[str, Stack]:
    """Return the stack of every layer; a concept's plain factors belong to that concept, at strength 1."""
    concepts = change.recipe.get("concepts", ())
    owner = concepts[0]["content_hash"] if len(concepts) == 1 else None
    return {layer: part if isinstance(part, Stack) else Stack.of(owner, part) for layer, part in change.layers.items()}


def check_base(recipe: Mapping[str, Any], identity: BaseIdentity) -> None:
    """Refuse a change of another base, and a change whose recipe names no base.

    Raises:
        BaseModelError: Names the concepts, their base, and the base at hand.
    """
    names = ", ".join(concept_names(recipe)) or "a change"
    theirs = recipe.get("base") or {}
    ours = f"'{identity.name}' (hash {identity.hash[:12]})"
    if not theirs.get("hash"):
        raise BaseModelError(f"{names}: the recipe names no base; allowed are changes that were made for {ours}")
    if theirs["hash"] != identity.hash:
        raise BaseModelError(
            f"{names}: trained on base '{theirs.get('name', '')}' (hash {theirs['hash'][:12]}), this is {ours}"
        )
