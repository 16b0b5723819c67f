"""Truncation: the nearest change of lower rank, from the factors alone; a dense ``(out, in)`` matrix is never made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.options import check_fields, option

_ZERO = 1e-14
"""Squared singular values below this share of the largest are rounding errors of float64."""
_WELL_CONDITIONED = 1e-4
"""Smallest ratio of the diagonal of a Cholesky factor at which its inverse is used."""


@final
@dataclass(frozen=True)
class Truncation:
    """How much of a change is kept: a number of singular directions, or a share of its energy ``‖ΔW‖²``.

    Attributes:
        rank: The rank of every layer; layers of lower rank stay as they are.
        energy: The share of each layer's energy that is kept at least, above 0, up to 1: every layer gets the lowest
            rank that keeps it.
        max_rank: The highest rank that ``energy`` may give; the share is then less than asked for.

    Raises:
        ConfigurationError: When nothing is given, a rank stands beside another field, or a value is not allowed.
    """

    rank: int | None = option(None, lowest=1)
    energy: float | None = option(None, above=0, highest=1)
    max_rank: int | None = option(None, lowest=1)

    def __post_init__(self) -> None:
        """Refuse values outside their range, and fields that contradict one another."""
        check_fields(self, "truncation")
        if (self.rank is None) == (self.energy is None) or (self.rank is not None and self.max_rank is not None):
            raise ConfigurationError(
                f"a truncation has rank {self.rank}, energy {self.energy} and max_rank {self.max_rank}; allowed are a "
                "rank alone, or an energy with or without a max_rank"
            )


@final
@dataclass(frozen=True, eq=False)
class Truncated:
    """A truncated change.

    Attributes:
        change: The change, float32; the very same object as before if nothing was cut off.
        rank_before: Its rank before.
        energy: ``‖ΔW‖_F²`` before.
        lost: The part of ``energy`` that was cut off: the squared distance to the change before.
    """

    change: LowRank
    rank_before: int
    energy: float
    lost: float


def truncate(change: LowRank, truncation: Truncation, *, layer: str = "of a change") -> Truncated:
    """Return the nearest change of lower rank (Eckart and Young).

    The left singular vectors of ``ΔW = up · down`` are the eigenvectors of ``ΔW ΔWᵀ``. With ``up = Q Lᵀ``, Q of
    orthonormal columns, ``ΔW ΔWᵀ = Q (Lᵀ D L) Qᵀ`` and ``D = down downᵀ``: an eigenproblem of the rank's size. L is the
    Cholesky factor of ``upᵀ up``, or its root by eigenvectors where ``up`` has dependent columns. The result is
    ``(up L⁻ᵀ P) · (Pᵀ Lᵀ down)`` with the first eigenvectors P, which at full rank is the change whatever L rounds.
    Both factors get the root of the singular values, so that neither is small in half precision.

    All of it is float64: the Gram matrices square the singular values, and float32 would lose those below 3e-4 of the
    largest.

    Args:
        change: ``(out, in)`` of rank R, any float type.
        truncation: What is kept.
        layer: The layer's name, for the error.

    Raises:
        ConfigurationError: When a factor has numbers that are not finite.
    """
    if truncation.rank is not None and change.rank <= truncation.rank:
        return Truncated(change, change.rank, energy_of(change), 0.0)
    up, down = change.up.double(), change.down.double()
    if change.rank >= min(change.shape):
        return _result(change, *_truncate_matrix(up @ down, truncation, layer))
    root, inverse = _root(up.T @ up)
    values, vectors = _directions(root.T @ (down @ down.T) @ root, layer)
    rank = _rank(values, truncation)
    left, right = up @ (inverse @ vectors[:, :rank]), (vectors[:, :rank].T @ root.T) @ down
    return _result(change, *_balanced(left, right, values, rank))


def truncate_matrix(matrix: Tensor, truncation: Truncation, *, layer: str = "of a change") -> Truncated:
    """Return the nearest change of lower rank of a dense matrix; see ``truncate``.

    Args:
        matrix: ``ΔW (out, in)``, any float type.
        truncation: What is kept.
        layer: The layer's name, for the error.

    Raises:
        ConfigurationError: When there are numbers that are not finite.
    """
    up, down, energy, lost = _truncate_matrix(matrix.double(), truncation, layer)
    return Truncated(LowRank(up.float(), down.float()), min(matrix.shape), energy, lost)


def energy_of(change: LowRank) -> float:
    """Return ``‖up · down‖_F²`` in float64, without the product."""
    up, down = change.up.double(), change.down.double()
    return (
        float((up.T @ up * (down @ down.T)).sum())
        if change.rank < min(change.shape)
        else float((up @ down).square().sum())
    )


def _result(change: LowRank, up: Tensor, down: Tensor, energy: float, lost: float) -> Truncated:
    if up.shape[1] >= change.rank:
        return Truncated(change, change.rank, energy, 0.0)
    return Truncated(LowRank(up.float().contiguous(), down.float().contiguous()), change.rank, energy, lost)


def _truncate_matrix(matrix: Tensor, truncation: Truncation, layer: str) -> tuple[Tensor, Tensor, float, float]:
    if matrix.shape[0] > matrix.shape[1]:
        up, down, energy, lost = _truncate_matrix(matrix.T, truncation, layer)
        return down.T, up.T, energy, lost
    values, vectors = _directions(matrix @ matrix.T, layer)
    rank = _rank(values, truncation)
    return _balanced(vectors[:, :rank], vectors[:, :rank].T @ matrix, values, rank)


def _directions(core: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Squared singular values in descending order, and the eigenvectors."""
    if not bool(torch.isfinite(core).all()):
        raise ConfigurationError(f"layer {layer} has numbers that are not finite; allowed are finite numbers")
    values, vectors = torch.linalg.eigh(core)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def _balanced(left: Tensor, right: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """Return both factors with the root of the singular values, the energy before, and the energy cut off."""
    sizes = values[:rank].sqrt().sqrt().clamp_min(1e-300)
    return left * sizes, right / sizes.unsqueeze(1), float(values.sum()), float(values[rank:].sum())


def _rank(values: Tensor, truncation: Truncation) -> int:
    """The number of directions that are kept, of squared singular values in descending order; at least 1."""
    not_zero = int((values > _ZERO * values[0]).sum()) if len(values) else 0
    if truncation.rank is not None:
        return max(1, min(truncation.rank, not_zero))
    tail = values.flip(0).cumsum(0).flip(0)  # what is cut off when it is cut before a direction
    allowed = (1.0 - float(truncation.energy or 0)) * float(tail[0]) + _ZERO * float(values[0])
    rank = int((tail > allowed).sum())
    return max(1, min(rank, not_zero, truncation.max_rank or rank))


def _root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return L with ``L Lᵀ = upᵀ up``, and ``L⁻ᵀ``; directions in which ``up`` has nothing are left out.

    Returns:
        L, ``(R, m)``, and the matrix M, ``(R, m)``, for which ``up M`` has orthonormal columns.
    """
    lower, failed = torch.linalg.cholesky_ex(gram)
    diagonal = lower.diagonal()
    if not failed and bool(diagonal.min() > _WELL_CONDITIONED * diagonal.max()):
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return lower, torch.linalg.solve_triangular(lower, identity, upper=False).T
    if not bool(torch.isfinite(gram).all()):
        return gram, gram
    values, vectors = torch.linalg.eigh(gram)
    present = values > _ZERO * values[-1].clamp_min(1e-300)
    present[-1] = True
    sizes, vectors = values[present].clamp_min(1e-300).sqrt(), vectors[:, present]
    return vectors * sizes, vectors / sizes
