"""LoKr: a Kronecker product, which is a low-rank change if its sides are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.payloads.forms import kronecker_form
from orthoplex.concepts.exchange.payloads.payload import Difference, Payload
from orthoplex.concepts.exchange.payloads.products import side_factors, whole
from orthoplex.concepts.exchange.payloads.row import Form
from orthoplex.concepts.exchange.payloads.scaling import rounded


@final
class KroneckerProduct(Payload):
    """``ΔW = f · W₁ ⊗ W₂ = f · (A₁ ⊗ A₂)(B₁ ⊗ B₂)`` with ``Wᵢ = Aᵢ Bᵢ``; a whole side is itself and an identity.

    Its rank is the product of both sides' ranks. Where both sides are whole, no rank is there that could divide
    alpha: ``f`` is 1, as LyCORIS has it, or what PEFT's settings say.
    """

    form = staticmethod(kronecker_form)

    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> LowRank | Difference:
        (up1, down1), (up2, down2) = (_side(parts, i) for i in (1, 2))
        if form.exact_rank is None:
            return Difference(whole(torch.kron(up1 @ down1, up2 @ down2) * factor, form.shape))
        return LowRank(rounded(torch.kron(up1, up2) * factor), rounded(torch.kron(down1, down2)))


def _side(parts: Mapping[str, Tensor], i: int) -> tuple[Tensor, Tensor]:
    """Return a side as factors of its lowest rank that is known from shapes, float64."""
    if f"lokr_w{i}" in parts:
        change = LowRank.of_matrix(parts[f"lokr_w{i}"].double().flatten(1))
        return change.up, change.down
    up, down = side_factors(parts[f"lokr_w{i}_a"], parts[f"lokr_w{i}_b"], parts.get("lokr_t2") if i == 2 else None)
    if up.shape[1] <= min(up.shape[0], down.shape[1]):
        return up, down
    change = LowRank.of_matrix(up @ down)
    return change.up, change.down
