"""The parts of a change that engines read: its base, its concepts, and one stack for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, Recipe, Stack, Token
from orthoplex.errors import BaseModelError


class Foldable(Protocol):
    """A change of a base: a concept, or a merge of several."""

    @property
    def layers(self) -> Mapping[str, Stack] | Mapping[str, LowRank]:
        """Layer name to its change; plain factors are those of a single concept at strength 1."""
        ...

    @property
    def tokens(self) -> Mapping[str, Token]:
        """Name to token."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The concepts in it, and the base that it belongs to."""
        ...


def stacks_of(change: Foldable) -> dict[str, Stack]:
    """Return the stack of every layer; a concept's plain factors belong to that concept, at strength 1."""
    concepts = change.recipe.concepts
    owner = concepts[0].content_hash if len(concepts) == 1 else None
    return {layer: part if isinstance(part, Stack) else Stack.of(owner, part) for layer, part in change.layers.items()}


def check_base(recipe: Recipe, identity: BaseIdentity) -> None:
    """Refuse a change of another base.

    Raises:
        BaseModelError: Names the concepts, their base, and the base at hand.
    """
    if recipe.base.hash != identity.hash:
        names = ", ".join(recipe.names) or "a change"
        raise BaseModelError(
            f"{names}: trained on base {recipe.base}, this is {identity}; "
            "models.on_base(concept, base) adapts it to a fine-tune of its base"
        )
