"""Gram matrices as the factors that are stored, and linear systems that many layers share.

Layers that see the same inputs have the same system: ``A = Σ_i G_i + f G_0 + εI``. It is made and factorised once.
Where ``G_i = R_iᵀ R_i`` is stored as its k_i rows ``R_i``, the matrix ``M_i = R_i A⁻¹`` is made once as well, and a
layer needs ``down_i G_i A⁻¹ = (down_i R_iᵀ) M_i`` alone: ``4 r k_i in`` operations, and no matrix of the inputs' width
squared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

SMALLEST_RIDGE = 1e-6
"""Gram matrices of float32 are indefinite below: directions that no input has would be inverted as if they had."""


@final
@dataclass(frozen=True, eq=False)
class RowGram:
    """The Gram matrix ``G = Rᵀ R`` of inputs, as the rows of its factor.

    Attributes:
        rows: ``R (k, in)``, of any type.
    """

    rows: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """The shape ``(in, in)`` of the matrix."""
        return self.rows.shape[1], self.rows.shape[1]

    @cached_property
    def factor(self) -> Tensor:
        """``R`` in float64."""
        return self.rows.detach().double()

    @cached_property
    def matrix(self) -> Tensor:
        """``G``, float64."""
        return self.factor.T @ self.factor


Gram = Tensor | RowGram
"""A Gram matrix ``(in, in)``, or its factor."""


def dense(gram: Gram) -> Tensor:
    """Return a Gram matrix as a matrix, float64."""
    return gram.matrix if isinstance(gram, RowGram) else gram.double()


def damped(matrix: Tensor, ridge: float) -> Tensor:
    """Return ``matrix + ridge · mean(diag) · I``; a ridge below 1e-6 counts as 1e-6.

    Args:
        matrix: Symmetric, positive semidefinite but for rounding.
        ridge: As a share of the mean diagonal.
    """
    size = float(matrix.diagonal().mean())
    return matrix + max(ridge, SMALLEST_RIDGE) * (size or 1.0) * torch.eye(len(matrix), dtype=matrix.dtype)


def solve_damped(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Return ``right · (matrix + ridge · mean(diag) · I)⁻¹`` for a symmetric matrix that is positive semidefinite."""
    return DampedSystem(matrix, ridge).solve(right)


@final
class DampedSystem:
    """A symmetric matrix, damped and factorised: by Cholesky, or by LU where rounding has made it indefinite."""

    def __init__(self, matrix: Tensor, ridge: float) -> None:
        """Factorise ``matrix + ridge · mean(diag) · I``; see ``damped``.

        Args:
            matrix: ``(n, n)`` float64.
            ridge: As a share of the mean diagonal.
        """
        self._matrix = damped(matrix, ridge)
        self._lower, failure = torch.linalg.cholesky_ex(self._matrix)
        self._is_definite = int(failure) == 0

    def solve(self, right: Tensor) -> Tensor:
        """Return ``right · A⁻¹``.

        Args:
            right: ``(m, n)`` float64.
        """
        if self._is_definite:
            return torch.cholesky_solve(right.T, self._lower).T
        return torch.linalg.solve(self._matrix, right.T).T


@final
class SharedSystems:
    """What the layers of one merge share, so that it is computed once."""

    def __init__(self) -> None:
        self._totals: dict[_Key, tuple[_Given, Tensor]] = {}
        self._nearest: dict[_Key, tuple[_Given, NearestRows]] = {}

    def total(self, grams: Mapping[str, Gram], foreign: Gram | None, weight: float) -> Tensor:
        """Return ``Σ_i G_i + weight · G_0``, ``(in, in)`` float64; it is made once for the same objects.

        Args:
            grams: Content hash of a concept to its matrix.
            foreign: ``G_0``, or None without.
            weight: Of ``G_0``.
        """
        given = (*grams.values(), foreign)
        key = _key(given, weight)
        if key not in self._totals:
            self._totals[key] = (given, _total(grams, foreign, weight))
        return self._totals[key][1]

    def nearest(self, grams: Mapping[str, Gram], foreign: Gram | None, weight: float, ridge: float) -> NearestRows:
        """Return the solver of ``down_i G_i A⁻¹`` for layers with these inputs; see ``NearestRows``."""
        given = (*grams.values(), foreign)
        key = _key(given, weight, ridge)
        if key not in self._nearest:
            system = DampedSystem(self.total(grams, foreign, weight), ridge)
            self._nearest[key] = (given, NearestRows(grams, system))
        return self._nearest[key][1]


_Given = tuple[Gram | None, ...]
"""What a key names by identity; it is held, so that no other object gets its id."""
_Key = tuple[float, ...]


def _key(given: _Given, *numbers: float) -> _Key:
    return (*map(id, given), *numbers)


def _total(grams: Mapping[str, Gram], foreign: Gram | None, weight: float) -> Tensor:
    rows = [gram.factor for gram in grams.values() if isinstance(gram, RowGram)]
    parts = [dense(gram) for gram in grams.values() if not isinstance(gram, RowGram)]
    parts += [] if foreign is None else [weight * dense(foreign)]
    if rows:
        every = torch.cat(rows)
        parts.append(every.T @ every)
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


@final
class NearestRows:
    """``down_i G_i A⁻¹`` of all concepts and layers with the same inputs."""

    def __init__(self, grams: Mapping[str, Gram], system: DampedSystem) -> None:
        """Take a system.

        Args:
            grams: Content hash of a concept to ``G_i``.
            system: ``A``.
        """
        self._grams, self._system = grams, system
        self._inverses: dict[str, Tensor] = {}
        self._solved: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def of(self, concept: str, down: Tensor) -> Tensor:
        """Return ``down G_i A⁻¹``, ``(r, in)`` float32; for the same tensor the same one.

        Args:
            concept: The concept's content hash.
            down: ``(r, in)``.
        """
        key = (concept, id(down))
        if key not in self._solved:
            self._solved[key] = (down, self._make(concept, down.detach().double()).float().contiguous())
        return self._solved[key][1]

    def _make(self, concept: str, down: Tensor) -> Tensor:
        gram = self._grams[concept]
        if not isinstance(gram, RowGram):
            return self._system.solve(down @ dense(gram))
        if not self._inverses:
            rows = {name: own.factor for name, own in self._grams.items() if isinstance(own, RowGram)}
            solved = self._system.solve(torch.cat(list(rows.values())))
            self._inverses = dict(zip(rows, solved.split([len(own) for own in rows.values()]), strict=True))
        return (down @ gram.factor.T) @ self._inverses[concept]
