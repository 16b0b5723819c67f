"""SVD, TSV-M, Iso-C and KnOTS: merging by singular directions. All factorisations are made in float64."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.merging.algorithms.algorithm import LARGEST, Algorithm, WeightChanges
from orthoplex.merging.algorithms.sparse import elect_and_average, trim
from orthoplex.merging.truncation import Truncation, truncate
from orthoplex.options import option

_NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are rounding errors of float32 factors."""

_ROUNDING = 1e-9
"""Entries of singular vectors below this are rounding errors of float64."""


def thin_svd(change: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``U, σ, Vᵀ`` with ``up · down = U diag(σ) Vᵀ``, without ever making the product.

    QR of both factors, then the SVD of a core of their rank.

    Args:
        change: Of rank r.

    Returns:
        ``(out, m)``, ``(m,)`` descending, ``(m, in)``, float64, m the number of singular values that are not
        negligible; at least 1.
    """
    left, left_core = torch.linalg.qr(change.up.double())
    right, right_core = torch.linalg.qr(change.down.double().T)
    u, sigma, vh = torch.linalg.svd(left_core @ right_core.T, full_matrices=False)
    rank = max(1, int((sigma > _NEGLIGIBLE * sigma[0]).sum()))
    return left @ u[:, :rank], sigma[:rank], vh[:rank] @ right.T


def nearest_orthonormal(columns: Tensor) -> Tensor:
    """Return the matrix with orthonormal columns (or rows, if there are fewer) nearest to one: its polar factor.

    ``argmin_Q ‖Q − A‖_F = P Rᵀ`` with the SVD ``A = P Σ Rᵀ``.

    Args:
        columns: A, ``(n, m)`` float64.
    """
    left, _, right = torch.linalg.svd(columns, full_matrices=False)
    return left @ right


def _mixed(up: Tensor, down: Tensor) -> Stack:
    """Singular directions of several concepts, float32; no concept owns them."""
    return Stack.of(None, LowRank(up.float().contiguous(), down.float().contiguous()))


@final
@dataclass(frozen=True)
class Svd(Algorithm):
    """The best approximation of the sum by a change of lower rank (Eckart and Young): its largest singular triples.

    Attributes:
        rank: Of the result; 0 takes the largest rank among the concepts.
    """

    rank: int = option(0, lowest=0, highest=LARGEST)

    def merge(self, changes: WeightChanges) -> Stack:
        """Truncate ``Σ s_i ΔW_i``; a sum of lower rank is returned whole."""
        rank = self.rank or max(part.change.rank for part in changes.parts)
        return Stack.of(None, truncate(changes.stacked().low_rank, Truncation(rank=rank), layer=changes.layer).change)


@final
@dataclass(frozen=True)
class TaskSingularVectors(Algorithm):
    """TSV-M: the top ``1/k`` singular triples of each concept, their vectors made orthonormal together.

    ``ΔW = U⊥ diag(σ) V⊥ᵀ``: singular vectors of all concepts side by side, replaced by the nearest orthonormal ones;
    singular values keep their size and carry the strengths. Concepts of strength 0 or without a change have no part in
    it and do not count.
    Reference: Gargiulo et al., arXiv 2412.00081, section 4 (algorithm 1).
    """

    def merge(self, changes: WeightChanges) -> Stack:
        """Return a change whose rank is the number of triples kept: at most ``min(out, in)``, or one a concept."""
        num_unchanged = sum(1 for part in changes.parts if part.strength == 0 or not part.change.up.any())
        if num_unchanged == len(changes.parts):
            return Stack.of(None, changes.stacked().low_rank)
        num_triples = max(1, min(changes.shape) // (len(changes.parts) - num_unchanged))
        lefts, sizes, rights = [], [], []
        for part in changes.parts:
            if part.strength == 0 or not part.change.up.any():
                continue
            u, sigma, vh = thin_svd(part.change)
            lefts.append(u[:, :num_triples])
            sizes.append(part.strength * sigma[:num_triples])
            rights.append(vh[:num_triples].T)
        left, right = nearest_orthonormal(torch.cat(lefts, 1)), nearest_orthonormal(torch.cat(rights, 1))
        return _mixed(left * torch.cat(sizes), right.T)


@final
@dataclass(frozen=True)
class IsotropicSum(Algorithm):
    """Iso-C: the sum with all its singular values set to their mean, ``ΔW = σ̄ U Vᵀ``.

    The mean is taken over the singular values that are not zero: a sum of low-rank changes has no others to lift.
    Reference: Marczak et al., arXiv 2502.04959, section 4 (equations 7 and 8).
    """

    def merge(self, changes: WeightChanges) -> Stack:
        """Return a change of the sum's own rank."""
        u, sigma, vh = thin_svd(changes.stacked().low_rank)
        return _mixed(u * sigma.mean(), vh)


@final
@dataclass(frozen=True)
class KnotsTies(Algorithm):
    """KnOTS: changes brought into one shared output basis, merged there by TIES.

    ``[s_1 ΔW_1 … s_k ΔW_k] = U Σ [V_1ᵀ … V_kᵀ]``; ``ΔW = U Σ TIES(V_1ᵀ, …, V_kᵀ)``.
    Reference: Stoica et al., arXiv 2410.19735, section 4.

    Attributes:
        density: Share of each ``V_i``'s entries that trimming keeps, in (0, 1].
    """

    density: float = option(0.2, above=0, highest=1)

    def merge(self, changes: WeightChanges) -> Stack:
        """Return a change of rank at most that of all changes side by side."""
        scaled = changes.scaled()
        left, core = torch.linalg.qr(torch.cat([change.up for change in scaled], 1).double())
        rights, cores = zip(*(torch.linalg.qr(change.down.double().T) for change in scaled), strict=True)
        runs = core.split([change.rank for change in scaled], 1)
        # all changes side by side are this core times orthonormal rows, so that its SVD is theirs
        small = torch.cat([run @ right.T for run, right in zip(runs, cores, strict=True)], 1)
        u, sigma, vh = torch.linalg.svd(small, full_matrices=False)
        rank = max(1, int((sigma > _NEGLIGIBLE * sigma[0]).sum()))
        rows = vh[:rank].split([right.shape[1] for right in rights], 1)
        coordinates = [part @ right.T for part, right in zip(rows, rights, strict=True)]
        # what is zero but for rounding must be zero: it would get a vote
        coordinates = [part.where(part.abs() > _ROUNDING, 0.0) for part in coordinates]
        merged = elect_and_average([trim(part, self.density) for part in coordinates])
        return _mixed(left @ u[:, :rank] * sigma[:rank], merged)
