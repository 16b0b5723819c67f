"""Low-rank products: LoRA, LoCon with its core, the bias beside a product, and PEFT's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.payloads.forms import embedding_form, low_rank_bias_form, low_rank_form
from orthoplex.concepts.exchange.payloads.payload import Difference, Payload
from orthoplex.concepts.exchange.payloads.row import Form
from orthoplex.concepts.exchange.payloads.scaling import rounded, scaled


@final
class LowRankProduct(Payload):
    """``ΔW = f · up · down``; with LoCon's core, which has the window, ``f · Σ_mn up[:, m] mid[m, n] down[n, :]``."""

    form = staticmethod(low_rank_form)

    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> LowRank:
        up, down = parts["up"].flatten(1), parts["down"].flatten(1)
        if "mid" in parts:
            down = torch.einsum("mn...,nj->mj...", parts["mid"].double(), down.double()).flatten(1)
        return LowRank(scaled(up, factor), rounded(down))


@final
class LowRankBias(Payload):
    """PEFT's bias of ``lora_B``, which is scaled as the product is: ``Δb = f · bias``."""

    form = staticmethod(low_rank_bias_form)

    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> Difference:
        return Difference(scaled(parts["up_bias"], factor))


@final
class LowRankEmbedding(Payload):
    """PEFT's change of an embedding: ``ΔW = f · (up · down)ᵀ``, of shape ``(tokens, width)``."""

    form = staticmethod(embedding_form)

    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> LowRank:
        up, down = parts["embedding_down"].flatten(1).T, parts["embedding_up"].flatten(1).T
        return LowRank(scaled(up, factor).contiguous(), rounded(down).contiguous())
