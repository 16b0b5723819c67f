"""The change of one weight by several concepts, with every concept's columns and strength kept apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError


@final
@dataclass(frozen=True, eq=False)
class Run:
    """The change of one weight by one owner: ``gain · strength · up · down``.

    Attributes:
        owner: A concept's content hash; None for columns that an algorithm mixed from several concepts.
        change: ``up · down``; in a sum, the very factors that the concept has.
        strength: ``s``, which may be set afterwards.
        gain: What an algorithm or the scale of a merge multiplies the change with, whatever the strength.
    """

    owner: str | None
    change: LowRank
    strength: float = 1.0
    gain: float = 1.0

    @property
    def factor(self) -> float:
        """The one number that ``up · down`` is multiplied with."""
        return self.strength * self.gain

    def is_as(self, other: Run) -> bool:
        """Return True if another run is made of the same tensors and numbers."""
        return self.change is other.change and self.factor == other.factor


@final
@dataclass(frozen=True, eq=False)
class Stack:
    """The change ``ΔW = Σ_runs gain · s · up_run · down_run`` of one weight ``W`` of shape ``(out, in)``.

    It is ``up · diag(s) · down`` without cross terms, with the R columns of all runs side by side. Nothing is copied:
    the factors are those of the concepts until somebody asks for ``up`` or ``down``.

    Args:
        runs: The runs of columns, one after the other; at least one, all of one shape.

    Raises:
        ConfigurationError: If there is no run, or the shapes of the weights differ.
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        """Refuse runs that are no change of one weight."""
        if not self.runs:
            raise ConfigurationError("a stack of 0 low-rank changes was asked for; at least 1 is allowed")
        first = self.runs[0].change.shape
        if any(run.change.shape != first for run in self.runs):
            shapes = ", ".join(str(run.change.shape) for run in self.runs)
            raise ConfigurationError(f"low-rank changes of weights {shapes} cannot be stacked; all must have one shape")

    @staticmethod
    def of(owner: str | None, change: LowRank, strength: float = 1.0) -> Stack:
        """Return ``strength · ΔW`` of one owner.

        Args:
            owner: A concept's content hash; None for columns that are mixed from several concepts.
            change: ``ΔW``.
            strength: ``s``.
        """
        return Stack((Run(owner, change, float(strength)),))

    @staticmethod
    def stack(parts: Sequence[Stack]) -> Stack:
        """Return the sum of changes of one weight: their runs in the order given.

        Raises:
            ConfigurationError: If there is nothing to stack, or the weights' shapes differ.
        """
        return Stack(tuple(run for part in parts for run in part.runs))

    @property
    def owners(self) -> tuple[tuple[str | None, int], ...]:
        """For every run its owner and its number of columns."""
        return tuple((run.owner, run.change.rank) for run in self.runs)

    @property
    def rank(self) -> int:
        """The number R of columns."""
        return sum(run.change.rank for run in self.runs)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape ``(out, in)`` of the weight that is changed."""
        return self.runs[0].change.shape

    @property
    def is_owned(self) -> bool:
        """True if every column belongs to one concept."""
        return all(run.owner is not None for run in self.runs)

    @property
    def up(self) -> Tensor:
        """All columns side by side without strengths, ``(out, R)`` float32."""
        return _joined([_times(run.change.up.float(), run.gain) for run in self.runs], dim=1)

    @property
    def down(self) -> Tensor:
        """All rows one below the other, ``(R, in)`` float32."""
        return _joined([run.change.down.float() for run in self.runs], dim=0)

    @property
    def strengths(self) -> Tensor:
        """The strength of every run, ``(runs,)`` float32."""
        return torch.tensor([run.strength for run in self.runs], dtype=torch.float32)

    @property
    def column_strengths(self) -> Tensor:
        """The strength of every column, ``(R,)`` float32."""
        return self.strengths.repeat_interleave(torch.tensor([count for _, count in self.owners], dtype=torch.int64))

    @property
    def low_rank(self) -> LowRank:
        """The same change as plain factors, float32: every strength is multiplied into its columns of ``up``."""
        up = _joined([_times(_times(run.change.up.float(), run.gain), run.strength) for run in self.runs], dim=1)
        return LowRank(up, self.down)

    def delta(self) -> Tensor:
        """Return ``ΔW``, shape ``(out, in)``, float32."""
        return self.low_rank.delta()

    def scaled(self, factor: float) -> Stack:
        """Return ``factor · ΔW``; the strengths stay."""
        return self if factor == 1.0 else Stack(tuple(replace(run, gain=run.gain * factor) for run in self.runs))

    def with_downs(self, downs: Sequence[Tensor]) -> Stack:
        """Return the same columns, owners and strengths with other rows.

        Args:
            downs: For every run ``(r, in)``.
        """
        parts = zip(self.runs, downs, strict=True)
        return Stack(tuple(replace(run, change=LowRank(run.change.up, own)) for run, own in parts))

    def strength_of(self, owner: str) -> float | None:
        """Return the strength of an owner's first run; None if the owner has no column here."""
        return next((run.strength for run in self.runs if run.owner == owner), None)

    def with_strength(self, owner: str, strength: float) -> Stack:
        """Return the same change with another strength of one owner; an owner without columns here changes nothing.

        Raises:
            ConfigurationError: If there are columns without an owner.
        """
        self._check_owned()
        if self.strength_of(owner) is None:
            return self
        return Stack(tuple(replace(run, strength=strength) if run.owner == owner else run for run in self.runs))

    def only(self, owners: Collection[str]) -> Stack:
        """Return the part of the change that belongs to some owners; ``ΔW = 0``, of rank 0, if none has a column here.

        Raises:
            ConfigurationError: If there are columns without an owner.
        """
        self._check_owned()
        runs = tuple(run for run in self.runs if run.owner in owners)
        if runs:
            return Stack(runs)
        first = self.runs[0].change
        return Stack.of(None, LowRank(first.up[:, :0], first.down[:0]))

    def without(self, owner: str) -> Stack:
        """Return the part of the change that all others make.

        Raises:
            ConfigurationError: If there are columns without an owner.
        """
        return self.only({name for name, _ in self.owners if name is not None and name != owner})

    def is_as(self, other: Stack) -> bool:
        """Return True if another stack is made of the same tensors and numbers, in the same order."""
        return len(self.runs) == len(other.runs) and all(
            mine.is_as(run) for mine, run in zip(self.runs, other.runs, strict=True)
        )

    def _check_owned(self) -> None:
        if not self.is_owned:
            mixed = sum(count for owner, count in self.owners if owner is None)
            raise ConfigurationError(
                f"{mixed} of {self.rank} columns of a change are mixed from several concepts, and none of them can be "
                "taken out or turned alone; allowed are changes whose every column has an owner, as of algorithm 'sum'"
            )


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _times(values: Tensor, factor: float) -> Tensor:
    return values if factor == 1.0 else values * factor
