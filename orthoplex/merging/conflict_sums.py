"""Sums of comparisons over the layers of a set of files; one layer is in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from orthoplex.merging.conflict_files import ComparedFile
from orthoplex.merging.conflict_measures import LayerMeasures, measure_layer
from orthoplex.merging.conflict_report import LayerConflict
from orthoplex.merging.input_grams import InputGrams
from orthoplex.merging.systems import dense

_TINY = 1e-30


@final
@dataclass(eq=False)
class ConflictSums:
    """Sums over layers, ``(k, k)`` float64 for k files; see ``LayerMeasures`` for the names.

    Attributes:
        count: k.
        inner: ``Σ_l ⟨ΔW_a, ΔW_b⟩``.
        overlap_in: ``Σ_l ‖ΔW_a‖ ‖ΔW_b‖ · overlap`` of the directions that are read.
        overlap_out: The same of the directions that are written.
        products: See ``LayerMeasures``.
        signed: See ``LayerMeasures``.
        acting: ``Σ_l ‖ΔW_b ΔW_aᵀ‖² / ‖ΔW_a‖²`` in row a and column b: b's effect on the directions that a reads.
        effects: ``Σ_l E‖ΔW_b x_a‖²`` in row a and column b, for inputs ``x_a`` under a's own prompts.
        together: Layer to ``‖Σ s ΔW‖²``.
        apart: Layer to ``Σ ‖s ΔW‖²``.
        layers: Pair of numbers of files to their layers.
    """

    count: int
    inner: Tensor = field(init=False)
    overlap_in: Tensor = field(init=False)
    overlap_out: Tensor = field(init=False)
    products: Tensor = field(init=False)
    signed: Tensor = field(init=False)
    acting: Tensor = field(init=False)
    effects: Tensor = field(init=False)
    together: dict[str, float] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)
    layers: dict[tuple[int, int], list[LayerConflict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with zeros."""
        for name in ("inner", "overlap_in", "overlap_out", "products", "signed", "acting", "effects"):
            setattr(self, name, torch.zeros(self.count, self.count, dtype=torch.float64))

    def add(self, layer: str, members: Sequence[int], measures: LayerMeasures) -> None:
        """Add one layer.

        Args:
            layer: Its name.
            members: The numbers of the files that change it.
            measures: Their comparisons.
        """
        place = torch.meshgrid(torch.tensor(members), torch.tensor(members), indexing="ij")
        energies = measures.inner.diagonal().clamp_min(0.0)
        sizes = (energies[:, None] * energies).sqrt()
        overlap_in, overlap_out = (_overlap(part) for part in (measures.inputs, measures.outputs))
        self.inner[place] += measures.inner
        self.overlap_in[place] += sizes * overlap_in
        self.overlap_out[place] += sizes * overlap_out
        self.products[place] += measures.products
        self.signed[place] += measures.signed
        self.acting[place] += measures.inputs / energies.clamp_min(_TINY)[:, None]
        self.together[layer] = max(0.0, float(measures.inner.sum()))
        self.apart[layer] = float(energies.sum())
        cosines = measures.inner / sizes.clamp_min(_TINY)
        signs = sign_conflict(measures.products, measures.signed)
        numbers = torch.stack([sizes, cosines, overlap_in, overlap_out, signs], dim=2).tolist()
        for i, a in enumerate(members):
            for j, b in enumerate(members[i + 1 :], start=i + 1):
                self.layers.setdefault((a, b), []).append(LayerConflict(layer, *numbers[i][j]))

    def add_effects(self, layer: str, members: Sequence[int], effects: Mapping[int, Sequence[float]]) -> None:
        """Add the effects of changes on inputs under the prompts of some files.

        Args:
            layer: The layer.
            members: The numbers of the files that change it.
            effects: Number of a file to ``E‖ΔW_b x‖²`` of every member b.
        """
        for a, numbers in effects.items():
            for b, value in zip(members, numbers, strict=True):
                self.effects[a, b] += value


def sign_conflict(products: Tensor, signed: Tensor) -> Tensor:
    """Share of ``Σ |ΔW_a ∘ ΔW_b|`` where the signs disagree; one half where it is zero."""
    return (1.0 - (signed / products.clamp_min(_TINY)).clamp(-1.0, 1.0)) / 2.0


def _overlap(crossed: Tensor) -> Tensor:
    """``‖ΔW_a ΔW_bᵀ‖ / √(‖ΔW_a ΔW_aᵀ‖ ‖ΔW_b ΔW_bᵀ‖)``: ``subspaces.overlap``, with each direction's energy."""
    own = crossed.diagonal().clamp_min(_TINY).sqrt()
    return (crossed / (own[:, None] * own)).clamp(0.0, 1.0).sqrt()


Shapes = dict[str, dict[int, tuple[int, ...]]]
"""Layer to number of a file to the shape of the layer's change there."""


def compare_layers(files: Sequence[ComparedFile], inputs: InputGrams) -> tuple[ConflictSums, Shapes]:
    """Compare all layers of a set of files.

    Args:
        files: The files.
        inputs: Gram matrices of layers' inputs under the prompts of files, by content hash; empty where unknown.

    Returns:
        The sums, and the layers that have different shapes in different files, which are left out.
    """
    sums, unlike = ConflictSums(len(files)), {}
    for layer in dict.fromkeys(name for file in files for name in file.layer_strengths):
        members = [i for i, file in enumerate(files) if layer in file.layer_strengths]
        shapes = {i: files[i].shape(layer) for i in members}
        if any(differ(ours, theirs) for ours in shapes.values() for theirs in shapes.values()):
            unlike[layer] = shapes
            continue
        own = [files[i].layer_strengths[layer] for i in members]
        changes = [files[i].layers[layer] for i in members]
        sums.add(layer, members, measure_layer(layer, changes, own))
        if grams := _grams(layer, files, changes[0].shape[1], inputs):
            effects = {
                a: [strength**2 * change.energy(gram) for change, strength in zip(changes, own, strict=True)]
                for a, gram in grams.items()
            }
            sums.add_effects(layer, members, effects)
    return sums, unlike


def differ(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Return True if two shapes of one layer cannot be added; a flattened convolution fits any window of its width."""
    flat = [(shape[0], math.prod(shape[1:])) for shape in (first, second)]
    return flat[0] != flat[1] or (len(first) == len(second) and first != second)


def _grams(layer: str, files: Sequence[ComparedFile], width: int, inputs: InputGrams) -> dict[int, Tensor]:
    """The Gram matrices of a layer's inputs under each file's own prompts, where they are known."""
    if not inputs.concepts:
        return {}
    own = ((i, inputs.concepts.get(item.file.content_hash, {}).get(layer)) for i, item in enumerate(files))
    return {i: dense(gram) for i, gram in own if gram is not None and gram.shape[0] == width}
