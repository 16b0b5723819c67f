"""LoHa: the product of two low-rank changes number by number, which is a low-rank change itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.payloads.forms import hadamard_form
from orthoplex.concepts.exchange.payloads.payload import Difference, Payload
from orthoplex.concepts.exchange.payloads.products import side_factors, whole
from orthoplex.concepts.exchange.payloads.row import Form
from orthoplex.concepts.exchange.payloads.scaling import rounded


@final
class HadamardProduct(Payload):
    """``ΔW = f · (A₁ B₁) ⊙ (A₂ B₂) = f · (A₁ ∗ A₂)(B₁ ⋆ B₂)``, of rank ``r²``.

    ``∗`` multiplies every column of ``A₁`` with every column of ``A₂``, ``⋆`` every row of ``B₁`` with every row of
    ``B₂``: the Khatri-Rao products by rows and by columns.

    Reference: FedPara, arXiv:2108.06098, proposition 1.
    """

    form = staticmethod(hadamard_form)

    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> LowRank | Difference:
        (up1, down1), (up2, down2) = (
            side_factors(parts[f"w{i}_a"], parts[f"w{i}_b"], parts.get(f"t{i}")) for i in (1, 2)
        )
        if form.exact_rank is None:
            return Difference(whole((up1 @ down1) * (up2 @ down2) * factor, form.shape))
        up = torch.einsum("oi,oj->oij", up1, up2).flatten(1)
        down = torch.einsum("in,jn->ijn", down1, down2).flatten(0, 1)
        return LowRank(rounded(up * factor), rounded(down))
