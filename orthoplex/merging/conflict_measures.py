"""How much the changes of one weight by several files have to do with one another, from their factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.subspaces import choose_rows, seeded

SAMPLED_ROWS = 32
"""Output rows of a weight from which signs are compared."""
WIDEST_RANK = 128
"""Changes of a higher rank are compared by this many leading directions, and by their exact inner products."""
_SPARE = 8
"""Directions beyond those that are wanted, for the accuracy of a randomised decomposition."""


@final
@dataclass(frozen=True, eq=False)
class LayerMeasures:
    """Comparisons of the changes of one weight by k files, each ``(k, k)`` float64.

    Attributes:
        inner: ``⟨ΔW_a, ΔW_b⟩``; the diagonal holds the energies ``‖ΔW_a‖²``.
        inputs: ``‖ΔW_a ΔW_bᵀ‖²``: 0 where the two read orthogonal directions of the input.
        outputs: ``‖ΔW_aᵀ ΔW_b‖²``: 0 where the two write orthogonal directions of the output.
        products: ``Σ |ΔW_a ∘ ΔW_b|`` over the entries of sampled rows.
        signed: ``Σ ΔW_a ∘ ΔW_b`` over the same entries.
    """

    inner: Tensor
    inputs: Tensor
    outputs: Tensor
    products: Tensor
    signed: Tensor


def measure_layer(layer: str, changes: Sequence[LowRank], strengths: Sequence[float]) -> LayerMeasures:
    """Compare the changes ``s_i ΔW_i`` of one weight; no change is made a whole matrix but those of high rank.

    ``⟨ΔW_a, ΔW_b⟩`` is the sum of ``(up_aᵀ up_b) ∘ (down_a down_bᵀ)``, and ``‖ΔW_a ΔW_bᵀ‖²`` the trace of
    ``U_a D U_b Dᵀ`` with ``U_a = up_aᵀ up_a`` and ``D = down_a down_bᵀ``; ``‖ΔW_aᵀ ΔW_b‖²`` swaps the two.

    Args:
        layer: The layer's name, which decides the rows that are sampled.
        changes: k changes of one shape ``(out, in)``.
        strengths: One for each.
    """
    factors = [
        LowRank(change.up.detach().float() * strength, change.down.detach().float())
        for change, strength in zip(changes, strengths, strict=True)
    ]
    dense = {i: change.delta() for i, change in enumerate(factors) if change.rank > WIDEST_RANK}
    reduced = [_leading(layer, dense[i]) if i in dense else change for i, change in enumerate(factors)]
    ups, downs = _grams([c.up.T for c in reduced]), _grams([c.down for c in reduced])
    inner = (ups * downs).sum(dim=(2, 3))
    for i, delta in dense.items():
        for j, change in enumerate(factors):
            other = dense[j] if j in dense else None
            product = (delta * other).sum() if other is not None else (change.up.T @ delta * change.down).sum()
            inner[i, j] = inner[j, i] = product.double()
    products, signed = _entries(layer, factors, dense)
    return LayerMeasures(inner, _crossed(ups, downs), _crossed(downs, ups), products, signed)


def _leading(layer: str, delta: Tensor) -> LowRank:
    """The leading directions of a change, by Halko et al., arXiv 0909.4061, algorithm 4.4."""
    wanted = min(WIDEST_RANK, *delta.shape)
    probe = torch.randn(delta.shape[1], min(wanted + _SPARE, *delta.shape), generator=seeded("conflicts", layer))
    basis = torch.linalg.qr(delta @ probe)[0]
    basis = torch.linalg.qr(delta @ (delta.T @ basis))[0][:, :wanted]
    return LowRank(basis, basis.T @ delta)


def _grams(rows: Sequence[Tensor]) -> Tensor:
    """Products of the rows of all parts, ``(k, k, r, r)`` float64; parts of fewer than r rows are filled with zeros."""
    largest = max(1, *(len(part) for part in rows)) if len(rows) > 1 else max(1, len(rows[0]))
    padded = torch.stack([torch.nn.functional.pad(part, (0, 0, 0, largest - len(part))) for part in rows]).flatten(0, 1)
    count = len(rows)
    return (padded @ padded.T).double().reshape(count, largest, count, largest).transpose(1, 2)


def _crossed(own: Tensor, between: Tensor) -> Tensor:
    """``tr(O_a B O_b Bᵀ)`` for all pairs, with ``O_a`` of ``own`` and ``B`` of ``between``; never below 0."""
    diagonal = torch.stack([own[i, i] for i in range(len(own))])
    mixed = diagonal[:, None] @ between
    return (mixed * mixed.transpose(0, 1).transpose(2, 3)).sum(dim=(2, 3)).clamp_min(0.0)


def _entries(layer: str, factors: Sequence[LowRank], dense: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Sums of products of entries over sampled rows, without and with their signs."""
    height = factors[0].shape[0]
    rows = torch.arange(height)
    if height > SAMPLED_ROWS:
        rows = choose_rows("random", width=height, rank=SAMPLED_ROWS, concept_id="conflicts", layer=layer)
    parts = [dense[i][rows] if i in dense else change.up[rows] @ change.down for i, change in enumerate(factors)]
    entries = torch.stack([part.flatten() for part in parts])
    sizes = entries.abs()
    return (sizes @ sizes.T).double(), (entries @ entries.T).double()
