"""A weight with a change folded in."""

from __future__ import annotations

from torch import Tensor, nn

from orthoplex.concepts import Stack
from orthoplex.models.weights import FoldedWeights


def folded_weight(weight: Tensor, change: Stack) -> Tensor:
    """Return what folding makes of a weight, ``(out, in)``; the weight stays as it is."""
    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    FoldedWeights({"layer": layer}).apply({"layer": change})
    return layer.weight.data
