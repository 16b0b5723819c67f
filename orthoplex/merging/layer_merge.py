"""Merging layer by layer: whatever has changes of named weights, concepts or LoRA files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms import Algorithm, Part, WeightChanges
from orthoplex.merging.input_grams import InputGrams, algorithm_of
from orthoplex.merging.systems import SharedSystems

Strength = float | Callable[[str], float]
"""The strength of all layers, or the strength of each by its name; a layer at strength 0 counts as not changed."""


class Changes(Protocol):
    """What has changes of named weights: a concept, or a LoRA file."""

    @property
    def name(self) -> str:
        """Its name in errors."""
        ...

    @cached_property
    def content_hash(self) -> str:
        """Identifies its content."""
        ...

    @property
    def layers(self) -> Mapping[str, LowRank]:
        """Layer to its change."""
        ...


def merge_layers(
    algorithm: Algorithm,
    members: Sequence[tuple[Changes, Strength]],
    inputs: InputGrams | None = None,
    *,
    only: Callable[[str], bool] | None = None,
) -> dict[str, Stack]:
    """Merge the weights of concepts or files, layer by layer, without their tokens; see ``merge``.

    Args:
        algorithm: The algorithm.
        members: What is merged, with the strengths, in the order in which it is stacked.
        inputs: Gram matrices of the inputs of these layers, for algorithms that need them.
        only: Returns True for the names of layers to merge; None merges all.

    Raises:
        ConfigurationError: When a layer has different shapes.
    """
    merged, systems = {}, SharedSystems()
    for layer in changed_layers(members):
        changes = weight_changes(layer, members, inputs, systems) if not only or only(layer) else None
        if changes is not None:
            merged[layer] = algorithm_of(layer, algorithm, inputs).merge(changes)
    return merged


def changed_layers(members: Sequence[tuple[Changes, Strength]]) -> list[str]:
    """Return the names of all layers that any member changes, sorted."""
    return sorted({layer for member, _ in members for layer in member.layers})


def weight_changes(
    layer: str,
    members: Sequence[tuple[Changes, Strength]],
    inputs: InputGrams | None = None,
    systems: SharedSystems | None = None,
) -> WeightChanges | None:
    """Return the changes of one layer by all members; None if no member changes it.

    Args:
        layer: The layer's name.
        members: See ``merge_layers``.
        inputs: See ``merge_layers``.
        systems: What it shares with other layers of the merge; None for nothing.

    Raises:
        ConfigurationError: When the layer has different shapes.
    """
    parts: list[Part] = []
    for member, strength in members:
        if layer not in member.layers:
            continue
        own = strength(layer) if callable(strength) else strength
        if own == 0:
            continue
        change = member.layers[layer]
        if parts and parts[0].change.shape != change.shape:
            raise ConfigurationError(
                f"layer {layer} has shape {change.shape} in {member.name} but {parts[0].change.shape} in an earlier "
                "one; one shape is allowed"
            )
        parts.append(Part(member.content_hash, change, float(own)))
    if not parts:
        return None
    if inputs is None:
        return WeightChanges(layer, tuple(parts), len(members))
    grams, foreign = inputs.of_layer(layer), inputs.foreign.get(layer)
    return WeightChanges(layer, tuple(parts), len(members), grams, foreign, systems or SharedSystems())
