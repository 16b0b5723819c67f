"""Crosstalk: the effect of a change of a weight on inputs of another concept."""

from __future__ import annotations

import math

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError


def crosstalk(change: LowRank, weight: Tensor, gram: Tensor) -> float:
    """Return ``‖ΔW X‖_F / ‖W X‖_F`` for inputs X of which only ``G = E[x xᵀ]`` is known.

    ``‖ΔW X‖²_F ∝ tr(ΔW G ΔWᵀ)``, with ``ΔW = up · down`` the sum of ``(upᵀ up) ∘ (down G downᵀ)``. On a concept's own
    inputs the ratio measures its effect. On another concept's inputs it is the crosstalk of Po et al., arXiv
    2312.02432, section 4.1, as a share of the layer's output.

    Args:
        change: ``ΔW``, of shape ``(out, in)``.
        weight: ``W (out, in)``.
        gram: ``G (in, in)``.

    Raises:
        ConfigurationError: When the shapes do not fit, or the weight's outputs on these inputs are zero.
    """
    if change.shape != tuple(weight.shape) or tuple(gram.shape) != (weight.shape[1],) * 2:
        raise ConfigurationError(
            f"crosstalk of a change {change.shape} of a weight {tuple(weight.shape)} on a Gram matrix "
            f"{tuple(gram.shape)}; allowed are (out, in), (out, in) and (in, in)"
        )
    base, seen = (part.detach().cpu().double() for part in (weight, gram))
    given = float((base @ seen * base).sum())
    if not given > 0.0:
        raise ConfigurationError(f"the weight's outputs have the energy {given}; allowed are numbers above 0")
    return math.sqrt(max(0.0, change.energy(gram)) / given)
