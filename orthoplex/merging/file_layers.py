"""Merging the layers of files one at a time: as factors, or as full differences where these are smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.whole_layers import full_layers
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms import Algorithm, WeightChanges
from orthoplex.merging.algorithms.linear import Mean, Sum
from orthoplex.merging.concatenation import concatenated
from orthoplex.merging.file_members import Member, weight_shape
from orthoplex.merging.layer_merge import Changes, Strength, weight_changes
from orthoplex.merging.strengths import Strengths
from orthoplex.merging.truncation import Truncated, Truncation, truncate, truncate_matrix

Value = TypeVar("Value")


@final
class Lazy(Mapping[str, Value]):
    """Values that are made when they are asked for; the last one alone stays in memory."""

    def __init__(self, names: Sequence[str], make: Callable[[str], Value]) -> None:
        """Take the names, and the function that makes the value of one."""
        self._names, self._make = dict.fromkeys(names), make
        self._last: tuple[str, Value] | None = None

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        if self._last is None or self._last[0] != name:
            self._last = None  # its memory is free before the next is made
            self._last = (name, self._make(name))
        return self._last[1]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@final
@dataclass(frozen=True)
class LayerLoss:
    """The truncation of one layer.

    Attributes:
        rank_before: The rank before.
        rank: The rank now.
        energy: ``‖ΔW‖_F²`` before.
        lost: The part of it that was cut off.
    """

    rank_before: int
    rank: int
    energy: float
    lost: float


@final
@dataclass(frozen=True, eq=False)
class MergedLayers:
    """Merged changes.

    Attributes:
        layers: Layer to its change.
        differences: Parameter to its full difference.
        losses: Layer to its truncation.
        num_full: How many layers became full differences, because their rank is full.
        num_added: How many biases and norms were added, though the algorithm is no sum.
    """

    layers: Mapping[str, LowRank]
    differences: Mapping[str, Tensor]
    losses: Mapping[str, LayerLoss]
    num_full: int = 0
    num_added: int = 0


@final
@dataclass(frozen=True, eq=False)
class LayerWork:
    """The merge of layers of files.

    Attributes:
        algorithm: The algorithm.
        files: The files that have a part in it, with their strengths.
        scale: λ.
        truncation: See ``merge_files``.
        selected: Returns True for the names of layers that are merged.
    """

    algorithm: Algorithm
    files: Sequence[tuple[LoraFile, Strengths]]
    scale: float
    truncation: Truncation | None
    selected: Callable[[str], bool]

    @property
    def is_linear(self) -> bool:
        """True if the merge is a sum times a number, so that factors side by side are exact."""
        return isinstance(self.algorithm, Sum | Mean)

    @property
    def has_full_layers(self) -> bool:
        """True if full differences of weights are merged as layers, with the changes in factors of the same weight."""
        return not self.is_linear or self.truncation is not None

    @property
    def factor(self) -> float:
        """The number by which all strengths of a linear merge are multiplied."""
        return self.scale / len(self.files) if isinstance(self.algorithm, Mean) and self.files else self.scale

    @cached_property
    def strengths(self) -> list[dict[str, float]]:
        """Layer or norm to strength, for every file; without those at strength 0 or not selected."""
        return [
            {layer: s for layer, s in strengths.of_layers(file).items() if s != 0 and self.selected(layer)}
            for file, strengths in self.files
        ]

    @cached_property
    def members(self) -> Sequence[tuple[Changes, Strength]]:
        """The files as members of ``merge_layers``."""
        return [
            (Member.of(file, with_full=self.has_full_layers), _getter(own))
            for (file, _), own in zip(self.files, self.strengths, strict=True)
        ]

    def merged(self) -> MergedLayers:
        """Merge everything; see ``merge_files``."""
        names = sorted(
            {
                layer
                for (member, _), own in zip(self.members, self.strengths, strict=True)
                for layer in member.layers
                if layer in own
            }
        )
        parameters = Lazy(self._parameters(), self._added)
        if self.is_linear and self.truncation is None:
            return MergedLayers(Lazy(names, self._concatenated), parameters, {})
        layers: dict[str, LowRank] = {}
        full: dict[str, Tensor] = {}
        losses: dict[str, LayerLoss] = {}
        for layer in names:
            merged = self._concatenated(layer) if self.is_linear else self._by_algorithm(layer)
            if self.truncation is not None:
                cut = _cut(merged, self.truncation, layer)
                merged = cut.change
                losses[layer] = LayerLoss(min(cut.rank_before, *merged.shape), merged.rank, cut.energy, cut.lost)
                if layer in self._full and merged.rank * sum(merged.shape) >= merged.shape[0] * merged.shape[1]:
                    merged = _product(merged)  # which is smaller than factors of this rank
            if isinstance(merged, LowRank):
                layers[layer] = merged
            else:
                shape = weight_shape(layer, (merged.shape[0], merged.shape[1]), [file for file, _ in self.files])
                full[f"{layer}.weight"] = merged.reshape(shape)
        num_full = len(full) if self.truncation is None else 0
        num_added = 0 if self.is_linear else len(parameters)
        return MergedLayers(layers, full | dict(parameters) if full else parameters, losses, num_full, num_added)

    @cached_property
    def _full(self) -> set[str]:
        """The layers whose weight has a full difference in a file."""
        return {layer for file, _ in self.files for layer in full_layers(file)}

    def _changes(self, layer: str) -> WeightChanges:
        changes = weight_changes(layer, self.members)
        if changes is None:
            raise KeyError(layer)
        return changes

    def _concatenated(self, layer: str) -> LowRank:
        return concatenated(self._changes(layer).parts, self.factor)

    def _by_algorithm(self, layer: str) -> LowRank | Tensor:
        """Return factors, or a matrix where factors of its rank would have more numbers."""
        merged = self.algorithm.merge(self._changes(layer)).scaled(self.scale).low_rank
        rows, columns = merged.shape
        return dense(merged) if merged.rank * (rows + columns) >= rows * columns else merged

    def _parameters(self) -> list[str]:
        """The parameters that are added: biases and norms, and full differences of weights that are no layers."""
        named = set()
        for (file, _), own in zip(self.files, self.strengths, strict=True):
            merged = {*full_layers(file).values()} if self.has_full_layers else set()
            named |= {name for name in file.differences if name not in merged and name.rpartition(".")[0] in own}
        return sorted(named)

    def _added(self, parameter: str) -> Tensor:
        layer = parameter.rpartition(".")[0]
        factor = self.factor if self.is_linear else self.scale
        parts = [
            (file.differences[parameter], own[layer] * factor)
            for (file, _), own in zip(self.files, self.strengths, strict=True)
            if layer in own and parameter in file.differences
        ]
        if len({part.shape for part, _ in parts}) > 1:
            shapes = " and ".join(str(tuple(part.shape)) for part, _ in parts)
            raise ConfigurationError(f"parameter {parameter} has shapes {shapes}; one shape is allowed")
        if len(parts) == 1 and parts[0][1] == 1.0:
            return parts[0][0]
        total = torch.zeros(parts[0][0].shape, dtype=torch.float64)
        for part, strength in parts:
            total += part.double() * strength
        return total.float()


def dense(change: LowRank) -> Tensor:
    """Return ``up · down``, float32; no product is made where one of the two is an identity."""
    for identity, matrix in ((change.up, change.down), (change.down, change.up)):
        if identity.shape[0] == identity.shape[1] and torch.equal(
            identity, torch.eye(len(identity), dtype=identity.dtype)
        ):
            return matrix.float()
    return change.delta()


def _product(change: LowRank) -> Tensor:
    return (change.up.double() @ change.down.double()).float()


def _cut(merged: LowRank | Tensor, truncation: Truncation, layer: str) -> Truncated:
    if isinstance(merged, LowRank):
        return truncate(merged, truncation, layer=layer)
    return truncate_matrix(merged, truncation, layer=layer)


def _getter(strengths: Mapping[str, float]) -> Callable[[str], float]:
    return lambda layer: strengths.get(layer, 0.0)
