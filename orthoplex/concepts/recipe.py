"""Recipes: the ingredients of a merge, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orthoplex import __version__
from orthoplex.concepts.base_identity import BaseIdentity


@dataclass(frozen=True)
class Ingredient:
    """One concept of a recipe.

    Attributes:
        name: The concept's name.
        kind: Its kind.
        strength: ``s``; 0 is the base, 1 is the concept.
        content_hash: SHA-256 (hex) of its content.
        slot: The slot it owns, or None.
        word: The rare word that calls it, where it has no tokens; else empty.
    """

    name: str
    kind: str
    strength: float
    content_hash: str
    slot: int | None
    word: str = ""


_USUAL_STRENGTH = 10.0


@dataclass(frozen=True)
class Recipe:
    """The base, the concepts and the options of a merge.

    Attributes:
        base: The base they belong to.
        concepts: The concepts, in the order in which they are stacked.
        algorithm: A name in ``orthoplex.merging.ALGORITHMS``.
        options: All options of the algorithm.
        inputs: Hash of the Gram matrices that it used, or None.
        scale: λ, the strength of the whole.
        package_version: Version of orthoplex that merged.
    """

    base: BaseIdentity
    concepts: tuple[Ingredient, ...]
    algorithm: str = "sum"
    options: Mapping[str, float | int] = field(default_factory=dict)
    inputs: str | None = None
    scale: float = 1.0
    package_version: str = __version__

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the concepts."""
        return tuple(concept.name for concept in self.concepts)

    @property
    def present(self) -> tuple[Ingredient, ...]:
        """The concepts that are in the change; those at strength 0 are not."""
        return tuple(concept for concept in self.concepts if concept.strength * self.scale != 0)

    @property
    def absent_names(self) -> tuple[str, ...]:
        """The names of the concepts whose strength is 0 alone, sorted; prompts are read without them."""
        return tuple(sorted({*self.names} - {concept.name for concept in self.present}))

    @property
    def words(self) -> dict[str, str]:
        """Names of the concepts in the change that have no tokens, to the rare words that call them."""
        return {concept.name: concept.word for concept in self.present if concept.word}

    @property
    def strengths(self) -> str:
        """Names with strengths, and the scale, as messages give them."""
        return ", ".join([*(f"{item.name}@{item.strength:g}" for item in self.concepts), f"scale {self.scale:g}"])

    @property
    def large_strengths(self) -> dict[str, float]:
        """Strengths and the scale, if larger than any base is likely to follow, by their names in messages."""
        named = {"scale": self.scale, **{f"strength of {item.name}": item.strength for item in self.concepts}}
        return {name: value for name, value in named.items() if abs(value) > _USUAL_STRENGTH}

    def with_strengths(self, strengths: Mapping[str, float]) -> Recipe:
        """Return the same recipe with other strengths.

        Args:
            strengths: Content hash of a concept to its strength; concepts that are missing keep theirs.
        """
        concepts = [replace(item, strength=strengths.get(item.content_hash, item.strength)) for item in self.concepts]
        return replace(self, concepts=tuple(concepts))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        return {
            "algorithm": self.algorithm,
            "options": dict(self.options),
            "inputs": self.inputs,
            "scale": self.scale,
            "concepts": [_plain(concept) for concept in self.concepts],
            "base": asdict(self.base),
            "package_version": self.package_version,
        }


def _plain(concept: Ingredient) -> dict[str, Any]:
    """An ingredient as plain JSON values; most have no rare word."""
    return {key: value for key, value in asdict(concept).items() if key != "word" or value}
