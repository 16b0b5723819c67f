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
        energy: ``‖ΔW‖_F²`` before; None if the rank was already low enough and nothing was computed.
        lost: The part of ``energy`` that was cut off: the squared distance to the change before.
    """

    change: LowRank
    rank_before: int
    energy: float | None
    lost: float


def truncate(change: LowRank, truncation: Truncation, *, layer: str = "of a change") -> Truncated:
    """Return the nearest change of lower rank (Eckart and Young).

    The left singular vectors of ``ΔW = up · down`` are the eigenvectors of ``ΔW ΔWᵀ``. With ``up = Q Lᵀ``, Q orthonormal
    columns, ``ΔW ΔWᵀ = Q (Lᵀ D L) Qᵀ`` and ``D = down downᵀ``: an eigenproblem of the size of the rank. L is the Cholesky
    factor of ``upᵀ up``, or its root by eigenvectors where ``up`` has dependent columns. The result is
    ``(up L⁻ᵀ P) · (Pᵀ Lᵀ down)`` with the first eigenvectors P; at full rank it is the change whatever the rounding of L.
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
        return Truncated(change, change.rank, None, 0.0)
    if change.shape[1] < change.shape[0] and change.rank >= change.shape[1]:
        swapped = _truncate(change.down.double().T, change.up.double().T, truncation, layer)
        return _result(change, swapped[1].T, swapped[0].T, *swapped[2:])
    return _result(change, *_truncate(change.up.double(), change.down.double(), truncation, layer))


def _result(change: LowRank, up: Tensor, down: Tensor, energy: float, lost: float) -> Truncated:
    if up.shape[1] >= change.rank:
        return Truncated(change, change.rank, energy, 0.0)
    return Truncated(LowRank(up.float().contiguous(), down.float().contiguous()), change.rank, energy, lost)


def _truncate(up: Tensor, down: Tensor, truncation: Truncation, layer: str) -> tuple[Tensor, Tensor, float, float]:
    """Return the factors, the energy before, and the energy cut off."""
    if down.shape[0] < up.shape[0]:
        root, inverse = _root(up.T @ up)
        core = root.T @ (down @ down.T) @ root
    else:  # the columns of up need no orthonormal basis: all of (out, out) is solved
        root, inverse = up.T, None
        product = up @ down
        core = product @ product.T
    if not bool(torch.isfinite(core).all()):
        raise ConfigurationError(f"layer {layer} has numbers that are not finite; allowed are finite numbers")
    values, vectors = torch.linalg.eigh(core)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    rank = _rank(values, truncation)
    first, sizes = vectors[:, :rank], values[:rank].sqrt().sqrt().clamp_min(1e-300)
    left = first if inverse is None else up @ (inverse @ first)
    right = (first.T @ root.T) @ down
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
