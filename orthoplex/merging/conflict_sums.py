"""Sums of comparisons over the layers of a set of files; one layer is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging.conflict_measures import LayerMeasures, measure_layer
from orthoplex.merging.conflict_report import LayerConflict
from orthoplex.merging.input_grams import InputGrams

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


def layers_of(files: Sequence[Concept | LoraFile]) -> Iterator[tuple[str, list[int], list[LowRank]]]:
    """Yield every changed layer with the numbers of the files that change it and their changes.

    Full differences of weights, norms and biases are layers too, named by their parameter.

    Args:
        files: The files.
    """
    names = dict.fromkeys(name for file in files for name in (*file.layers, *_differences(file)))
    for name in names:
        members = [i for i, file in enumerate(files) if name in file.layers or name in _differences(file)]
        yield name, members, [_change(files[i], name) for i in members]


def _differences(file: Concept | LoraFile) -> Mapping[str, Tensor]:
    return file.differences if isinstance(file, LoraFile) else {}


def _change(file: Concept | LoraFile, name: str) -> LowRank:
    if name in file.layers:
        return file.layers[name]
    difference = _differences(file)[name].float()
    return LowRank.of_matrix(difference.reshape(len(difference), -1) if difference.ndim else difference.reshape(1, 1))


def compare_layers(
    files: Sequence[Concept | LoraFile], strengths: Sequence[float], inputs: InputGrams
) -> tuple[ConflictSums, list[str]]:
    """Compare all layers of a set of files.

    Args:
        files: The files.
        strengths: One for each.
        inputs: Gram matrices of layers' inputs under the prompts of files, by content hash; empty where unknown.

    Returns:
        The sums, and the layers that have different shapes in different files, which are left out.
    """
    sums, unlike = ConflictSums(len(files)), []
    for layer, members, changes in layers_of(files):
        if len({change.shape for change in changes}) > 1:
            unlike.append(layer)
            continue
        own = [strengths[i] for i in members]
        sums.add(layer, members, measure_layer(layer, changes, own))
        if grams := _grams(layer, files, changes[0].shape[1], inputs):
            scaled = [change.scaled(strength) for change, strength in zip(changes, own, strict=True)]
            sums.add_effects(
                layer, members, {a: [change.energy(gram) for change in scaled] for a, gram in grams.items()}
            )
    return sums, unlike


def _grams(layer: str, files: Sequence[Concept | LoraFile], width: int, inputs: InputGrams) -> dict[int, Tensor]:
    """The Gram matrices of a layer's inputs under each file's own prompts, where they are known."""
    if not inputs.concepts:
        return {}
    own = ((i, inputs.concepts.get(file.content_hash, {}).get(layer)) for i, file in enumerate(files))
    return {i: gram for i, gram in own if gram is not None and gram.shape[0] == width}
