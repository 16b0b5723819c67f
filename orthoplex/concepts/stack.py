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
class Stack:
    """The change ``ΔW = up · diag(s) · down`` of one weight ``W`` of shape ``(out, in)`` by several concepts.

    The R columns of ``up``, with the R rows of ``down``, are divided into runs, one after the other. All columns of a
    run belong to one owner and carry one strength, so ``ΔW = Σ_runs s · up_run · down_run`` without cross terms.

    Args:
        up: ``(out, R)``, without the strengths.
        down: ``(R, in)``.
        owners: For every run its owner and its number of columns. An owner is a concept's content hash, or None for
            columns that an algorithm mixed from several concepts.
        strengths: One number for every run, ``(runs,)`` float32.

    Raises:
        ConfigurationError: If the factors do not fit together, or owners or strengths do not fit the factors.
    """

    up: Tensor
    down: Tensor
    owners: tuple[tuple[str | None, int], ...]
    strengths: Tensor

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        columns = sum(count for _, count in self.owners)
        if self.up.ndim != 2 or self.down.ndim != 2 or not self.up.shape[1] == self.down.shape[0] == columns:
            raise ConfigurationError(
                f"a stack has up {tuple(self.up.shape)}, down {tuple(self.down.shape)} and {columns} owned columns; "
                "allowed are up (out, R), down (R, in) and R columns with the same R"
            )
        if tuple(self.strengths.shape) != (len(self.owners),) or self.strengths.dtype != torch.float32:
            raise ConfigurationError(
                f"a stack's strengths are {tuple(self.strengths.shape)} {self.strengths.dtype}; allowed is one float32 "
                f"number for each of its {len(self.owners)} runs of columns"
            )

    @staticmethod
    def of(owner: str | None, change: LowRank, strength: float = 1.0) -> Stack:
        """Return ``strength · ΔW`` of one owner, float32.

        Args:
            owner: A concept's content hash; None for columns that are mixed from several concepts.
            change: ``ΔW``.
            strength: ``s``.
        """
        strengths = torch.tensor([strength], dtype=torch.float32)
        return Stack(change.up.float(), change.down.float(), ((owner, change.rank),), strengths)

    @staticmethod
    def stack(parts: Sequence[Stack]) -> Stack:
        """Return the sum of changes of one weight: their runs in the order given.

        Raises:
            ConfigurationError: If there is nothing to stack, or the weights' shapes differ.
        """
        factors = LowRank.stack([LowRank(part.up, part.down) for part in parts])
        owners = tuple(run for part in parts for run in part.owners)
        return Stack(factors.up, factors.down, owners, torch.cat([part.strengths for part in parts]))

    @property
    def rank(self) -> int:
        """The number R of columns."""
        return self.up.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape ``(out, in)`` of the weight that is changed."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def is_owned(self) -> bool:
        """True if every column belongs to one concept."""
        return all(owner is not None for owner, _ in self.owners)

    @property
    def column_strengths(self) -> Tensor:
        """The strength of every column, ``(R,)`` float32."""
        counts = torch.tensor([count for _, count in self.owners], dtype=torch.int64)
        return self.strengths.repeat_interleave(counts.to(self.strengths.device))

    @property
    def low_rank(self) -> LowRank:
        """The same change as plain factors: every strength is multiplied into its columns of ``up``."""
        if bool((self.strengths == 1).all()):
            return LowRank(self.up, self.down)
        return LowRank(self.up * self.column_strengths.to(self.up.device), self.down)

    def delta(self) -> Tensor:
        """Return ``ΔW = up · diag(s) · down``, shape ``(out, in)``, float32."""
        return self.low_rank.delta()

    def scaled(self, factor: float) -> Stack:
        """Return ``factor · ΔW``; the factor is multiplied into ``up``, and the strengths stay."""
        return self if factor == 1.0 else replace(self, up=self.up * factor)

    def strength_of(self, owner: str) -> float | None:
        """Return the strength of an owner's first run; None if the owner has no column here."""
        return next((float(s) for (name, _), s in zip(self.owners, self.strengths, strict=True) if name == owner), None)

    def with_strength(self, owner: str, strength: float) -> Stack:
        """Return the same change with another strength of one owner; an owner without columns here changes nothing.

        Raises:
            ConfigurationError: If there are columns without an owner.
        """
        self._check_owned()
        if self.strength_of(owner) is None:
            return self
        owned = torch.tensor([name == owner for name, _ in self.owners], device=self.strengths.device)
        return replace(self, strengths=torch.where(owned, self.strengths.new_tensor(strength), self.strengths))

    def only(self, owners: Collection[str]) -> Stack:
        """Return the part of the change that belongs to some owners; ``ΔW = 0``, of rank 0, if none has a column here.

        Raises:
            ConfigurationError: If there are columns without an owner.
        """
        self._check_owned()
        runs = [owner in owners for owner, _ in self.owners]
        chosen = torch.tensor(runs, dtype=torch.bool)
        counts = torch.tensor([count for _, count in self.owners], dtype=torch.int64)
        columns = chosen.repeat_interleave(counts)
        runs_of_owners = tuple(run for run, is_kept in zip(self.owners, runs, strict=True) if is_kept)
        return Stack(self.up[:, columns], self.down[columns], runs_of_owners, self.strengths[chosen])

    def without(self, owner: str) -> Stack:
        """Return the part of the change that all others make.

        Raises:
            ConfigurationError: If there are columns without an owner.
        """
        return self.only({name for name, _ in self.owners if name is not None and name != owner})

    def _check_owned(self) -> None:
        if not self.is_owned:
            mixed = sum(count for owner, count in self.owners if owner is None)
            raise ConfigurationError(
                f"{mixed} of {self.rank} columns of a change are mixed from several concepts, and none of them can be "
                "taken out or turned alone; allowed are changes whose every column has an owner, as of algorithm 'sum'"
            )
