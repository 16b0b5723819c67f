"""Adoption: a LoRA of another program becomes a concept that is silent where it is not named, on request in a slot.

Nothing is trained and nobody gives a picture: every layer's change is solved for from what the layer sees under the
concept's own prompts and under foreign ones (erasure in closed form). Where layers see pictures, the base makes some.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from orthoplex.activations.concept_erasure import ErasedLayers, Solve, after_erasure, erased_layers
from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.activations.grams import split_layers
from orthoplex.activations.stored_inputs import with_inputs
from orthoplex.adapters import AdapterConfig, LowRank
from orthoplex.concepts import Concept
from orthoplex.errors import ConfigurationError
from orthoplex.merging import erasure_in_rows
from orthoplex.models import Base
from orthoplex.subspaces import BASIS_ID, choose_rows, shared_basis_rows

Unsolved = Literal["keep", "leave-out"]
"""What becomes of changes that erasure cannot solve for: convolutions with a window, norms and biases."""


@final
@dataclass(frozen=True, eq=False)
class Adoption:
    """An adopted concept, and what is left of the file's changes.

    Attributes:
        concept: The concept, ready to be saved.
        energy_kept: Solved layer to the share of ``E‖ΔW x‖²`` under the concept's own prompts that is left.
        energy_elsewhere: The same under foreign prompts.
        unsolved: The layers that erasure cannot solve for.
        unsolved_share: Their share of ``Σ ‖ΔW‖²`` over all layers of the file; they act on every prompt alike.
        are_kept: True if these are in the concept, as they were.
    """

    concept: Concept
    energy_kept: Mapping[str, float]
    energy_elsewhere: Mapping[str, float]
    unsolved: tuple[str, ...]
    unsolved_share: float
    are_kept: bool

    @property
    def mean_kept(self) -> float:
        """The mean of ``energy_kept`` over solved layers; 1 for a concept of tokens alone."""
        return statistics.fmean(self.energy_kept.values()) if self.energy_kept else 1.0

    @property
    def mean_elsewhere(self) -> float:
        """The mean of ``energy_elsewhere`` over solved layers; 0 for a concept of tokens alone."""
        return statistics.fmean(self.energy_elsewhere.values()) if self.energy_elsewhere else 0.0


@torch.no_grad()
def adopt(
    base: Base,
    concept: Concept,
    options: ErasureOptions,
    *,
    slot: int | None = None,
    unsolved: Unsolved = "keep",
    foreign_prompts: Sequence[str] | None = None,
) -> Adoption:
    """Return a concept of another program's LoRA that is silent where it is not named.

    With a slot, each layer's change reads the slot's rows ``S`` of the shared basis alone: ``ΔW' = U S`` with the U
    that leaves most of what ``ΔW`` adds under own prompts and least under foreign ones. Concepts in different slots do
    not meet; layers that erasure cannot solve for would, so a slot needs them left out.

    Args:
        base: The base, with nothing folded in.
        concept: As ``foreign_concept`` gives it, with a trigger and a class word.
        options: Weight, foreign prompts, and, where a layer sees pictures, prior pictures.
        slot: The slot; None gives it none.
        unsolved: ``"keep"`` or ``"leave-out"``.
        foreign_prompts: See ``with_erasure``.

    Raises:
        BaseModelError: When the concept does not fit the base.
        CapacityError: When the slot lies beyond a layer's capacity.
        ConfigurationError: When the concept has no trigger or no class word, nothing is left of it, no layer can be
            solved for, layers outside of the slot would be kept, or erasure in closed form was done before.
    """
    _check(concept)
    solvable, others = split_layers(base, concept.layers)
    share = _share(concept.layers, others)
    if unsolved == "keep":
        _check_slot(slot, concept, others)
    else:
        concept = replace(concept, layers={layer: concept.layers[layer] for layer in solvable})
    if not concept.layers and not concept.tokens:
        raise ConfigurationError(
            f"concept {concept.label} changes only layers that erasure cannot solve for, and all are left out; allowed "
            "are files that change a linear layer; use this one as it is, in orthoplex generate or orthoplex merge"
        )
    if not concept.layers:
        return Adoption(concept, {}, {}, others, share, are_kept=False)
    solve = None if slot is None else _in_slot(slot, concept.name, options.weight)
    erased = erased_layers(base, concept, options, foreign_prompts=foreign_prompts, solve=solve)
    finished = after_erasure(concept, erased.layers, options)
    if slot is not None:
        recorded = {"method": "orthogonal", "basis": "slot", "rank": "proportional", "slots": AdapterConfig().slots}
        manifest = replace(finished.manifest, slot=slot, basis_id=BASIS_ID, adapter=recorded)
        finished = replace(finished, manifest=manifest)
    return Adoption(
        with_inputs(base, finished, own=erased.own),
        _shares(concept, erased, erased.own),
        _shares(concept, erased, erased.foreign),
        others,
        share,
        are_kept=unsolved == "keep",
    )


def _in_slot(slot: int, name: str, weight: float) -> Solve:
    """Return how a layer is solved for among the changes that read a slot's rows alone."""
    config = AdapterConfig(slot=slot)

    def solve(layer: str, change: LowRank, own: Tensor, foreign: Tensor) -> LowRank:
        width = change.shape[1]
        chosen = choose_rows("slot", width=width, rank=config.rank_of(width), concept_id=name, layer=layer, slot=slot)
        return erasure_in_rows(change, own, foreign, rows=shared_basis_rows(width, chosen), weight=weight)

    return solve


def _shares(before: Concept, erased: ErasedLayers, grams: Mapping[str, Tensor]) -> dict[str, float]:
    return {
        layer: erased.layers[layer].energy(gram) / max(before.layers[layer].energy(gram), 1e-30)
        for layer, gram in sorted(grams.items())
    }


def _share(layers: Mapping[str, LowRank], chosen: Sequence[str]) -> float:
    """The share of ``Σ ‖ΔW‖²`` that lies in some layers."""
    if not chosen:
        return 0.0
    sizes = {layer: _squared_norm(change) for layer, change in layers.items()}
    return sum(sizes[layer] for layer in chosen) / max(sum(sizes.values()), 1e-30)


def _squared_norm(change: LowRank) -> float:
    """``‖ΔW‖²`` as the sum of ``(upᵀ up) ∘ (down downᵀ)``, in float64."""
    up, down = change.up.double(), change.down.double()
    return float((up.T @ up * (down @ down.T)).sum())


def _check_slot(slot: int | None, concept: Concept, others: Sequence[str]) -> None:
    """Refuse a slot for a concept with layers that would read what other slots read, too."""
    if slot is not None and others:
        count = "1 layer" if len(others) == 1 else f"{len(others)} layers"
        raise ConfigurationError(
            f"slot is {slot}, and {count} of concept {concept.label} cannot be brought into it, such as {others[0]}; "
            "allowed with a slot is leaving them out (--unsolved leave-out)"
        )


def _check(concept: Concept) -> None:
    manifest = concept.manifest
    for what, value in (("trigger", manifest.trigger), ("class word", manifest.class_word)):
        if not value.strip():
            raise ConfigurationError(
                f"concept {concept.label} has no {what}; adoption needs one, to tell the concept's own prompts from "
                "others"
            )
    for token in concept.tokens:
        if token == f"<{concept.name}>" and token not in manifest.trigger:
            raise ConfigurationError(
                f"concept {concept.label} has the trigger {manifest.trigger!r}, which lacks its token {token}; allowed "
                f"is a trigger with it, as in '{token} {manifest.class_word}'"
            )
