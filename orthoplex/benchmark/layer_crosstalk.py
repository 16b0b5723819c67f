"""Crosstalk of the concepts of a merge, layer by layer, and its correlation with the loss of alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.benchmark.measurement import Measurement
from orthoplex.concepts import Concept
from orthoplex.merging import InputGrams, crosstalk
from orthoplex.merging.systems import dense
from orthoplex.subspaces import overlap


@dataclass(frozen=True)
class LayerCrosstalk:
    """One layer and one concept of one variant and seed.

    Attributes:
        variant: The variant's name.
        seed: The training seed.
        layer: The layer's name.
        concept: The concept i.
        own: `‖ΔW_i X_i‖ / ‖W X_i‖`, X_i what the layer sees under the concept's own prompts.
        others: `‖Σ_{j≠i} ΔW_j X_i‖ / ‖W X_i‖`: what the others of a merge do to them, mean over its largest merges.
        shared: Mean of `‖down_i down_jᵀ‖_F²` over the others, rows of length 1: how many directions both have; None
            where a change has as many directions as its weight.
        expected_shared: `r_i r_j / in`, what directions at random have in the mean; None likewise.
    """

    variant: str
    seed: int
    layer: str
    concept: str
    own: float
    others: float
    shared: float | None
    expected_shared: float | None


def measure_crosstalk(
    variant: str,
    seed: int,
    concepts: Sequence[Concept],
    groups: Sequence[Sequence[str]],
    weights: Mapping[str, Tensor],
    inputs: InputGrams,
) -> list[LayerCrosstalk]:
    """Measure every layer that two concepts or more change.

    Args:
        variant: The variant's name.
        seed: The training seed.
        concepts: The concepts.
        groups: The merges, as names of their members; a concept that is in none is left out.
        weights: Layer -> the base's weight `(out, in)`.
        inputs: What the layers see under each concept's own prompts.
    """
    rows = []
    for layer in sorted({layer for concept in concepts for layer in concept.layers}):
        owners = [concept for concept in concepts if layer in concept.layers]
        if len(owners) < 2:
            continue
        shared = _shared(owners, layer)
        for concept in owners:
            change, gram = concept.layers[layer], dense(inputs.concepts[concept.content_hash][layer])
            rests = [_rest(owners, group, concept, layer) for group in groups if concept.name in group]
            said = [crosstalk(rest, weights[layer], gram) if rest else 0.0 for rest in rests]
            if not said:
                continue
            narrow = concept.name in shared
            rows.append(
                LayerCrosstalk(
                    variant=variant,
                    seed=seed,
                    layer=layer,
                    concept=concept.name,
                    own=crosstalk(change, weights[layer], gram),
                    others=_mean(said),
                    shared=shared[concept.name][0] if narrow else None,
                    expected_shared=shared[concept.name][1] if narrow else None,
                )
            )
    return rows


def _rest(owners: Sequence[Concept], group: Sequence[str], concept: Concept, layer: str) -> LowRank | None:
    """Return the sum of the other members' changes of a layer; None if no other member changes it."""
    others = [_plain(other, layer) for other in owners if other is not concept and other.name in group]
    return LowRank.stack(others) if others else None


def _plain(concept: Concept, layer: str) -> LowRank:
    change = concept.layers[layer]
    return LowRank(change.up.float(), change.down.float())


def _shared(owners: Sequence[Concept], layer: str) -> dict[str, tuple[float, float]]:
    """Concept -> how many directions it has in common with another, and what random ones have; means over the others.

    Of concepts only that have fewer directions than the weight.
    """
    changes = {concept.name: concept.layers[layer] for concept in owners}
    pairs_of: dict[str, list[tuple[float, float]]] = {
        name: [] for name, change in changes.items() if change.rank < min(change.shape)
    }
    for first, second in combinations(changes, 2):
        if narrow := [name for name in (first, second) if name in pairs_of]:
            downs, (_, width) = [changes[name].down for name in (first, second)], changes[first].shape
            ranks = [len(down) for down in downs]
            value = min(ranks) * overlap(downs[0], downs[1]) ** 2
            for name in narrow:
                pairs_of[name].append((value, ranks[0] * ranks[1] / width))
    return {
        name: (_mean([value for value, _ in pairs]), _mean([expected for _, expected in pairs]))
        for name, pairs in pairs_of.items()
    }


@dataclass(frozen=True)
class CrosstalkSummary:
    """One layer, means over concepts and seeds.

    Attributes:
        layer: The layer's name.
        own: Variant -> mean of `LayerCrosstalk.own`.
        others: Variant -> mean of `LayerCrosstalk.others`.
        shared: Variant -> mean number of directions in common, where it is known.
        expected_shared: Variant -> what directions at random have.
        correlation: Spearman's rank correlation of `others` with the alignment that is lost in the merge, over the
            concepts and seeds of one variant, mean over variants: whether those lose most whose inputs the others
            disturb most, and not which method does. None where no variant has three, or none in which both vary.
    """

    layer: str
    own: Mapping[str, float]
    others: Mapping[str, float]
    shared: Mapping[str, float]
    expected_shared: Mapping[str, float]
    correlation: float | None


def summarise_crosstalk(
    rows: Sequence[LayerCrosstalk], measurements: Sequence[Measurement]
) -> tuple[CrosstalkSummary, ...]:
    """Summarise all variants, layer by layer.

    Args:
        rows: The measurements.
        measurements: Of merges of one size; what a concept lost there is `single_alignment - merged_alignment`.
    """
    lost = {(row.variant, row.seed, row.concept): row.single_alignment - row.merged_alignment for row in measurements}
    summaries = []
    for layer in dict.fromkeys(row.layer for row in rows):
        of_layer = [row for row in rows if row.layer == layer]
        means: dict[str, dict[str, float]] = {"own": {}, "others": {}, "shared": {}, "expected_shared": {}}
        correlations = []
        for variant in dict.fromkeys(row.variant for row in of_layer):
            own = [row for row in of_layer if row.variant == variant]
            for field, by_variant in means.items():
                if values := [value for row in own if (value := getattr(row, field)) is not None]:
                    by_variant[variant] = _mean(values)
            keys = [(row.others, (row.variant, row.seed, row.concept)) for row in own]
            correlations.append(rank_correlation([(others, lost[key]) for others, key in keys if key in lost]))
        defined = [value for value in correlations if value is not None]
        summaries.append(CrosstalkSummary(layer=layer, correlation=_mean(defined) if defined else None, **means))
    return tuple(summaries)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Returns:
        A number in [-1, 1]; None for fewer than three pairs, or where one side never varies.
    """
    if len(pairs) < 3:
        return None
    first, second = (_ranks(torch.tensor(side, dtype=torch.float64)) for side in zip(*pairs, strict=True))
    first, second = first - first.mean(), second - second.mean()
    size = float(first.norm() * second.norm())
    return None if size == 0.0 else float(first @ second) / size


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None] > values[None]).sum(1)
    equal = (values[:, None] == values[None]).sum(1)
    return below + (equal - 1).double() / 2


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
