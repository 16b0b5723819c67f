"""Dual directions: rows that hear some vectors, each its own, and as little as possible of everything else."""

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError

_DEPENDENT = 1e-10
"""Squared volume that unit vectors span, below which they count as dependent."""


def dual_rows(vectors: Tensor, gram: Tensor, *, ridge: float) -> Tensor:
    """Return rows D with ``D Xᵀ = I`` whose energy ``tr(D G Dᵀ)`` on other inputs is least.

    ``D = (X Ĝ⁻¹ Xᵀ)⁻¹ X Ĝ⁻¹`` with ``Ĝ = G + ridge · mean(diag G) · I``; for one vector ``d = Ĝ⁻¹x / xᵀĜ⁻¹x``.
    An update ``up · D`` then gives ``up[:, i]`` on the input ``x_i``, and is as silent as any can be on the inputs that
    G was gathered from.

    Args:
        vectors: X, ``(m, in)``: the inputs to be heard.
        gram: ``G = E[x xᵀ]`` of the inputs not to be heard, ``(in, in)``.
        ridge: Above 0; keeps D short where G says nothing.

    Returns:
        ``(m, in)`` float32.

    Raises:
        ConfigurationError: When the shapes do not fit, the ridge is not above 0, or the vectors depend on each other.
    """
    count, width = vectors.shape
    if gram.shape != (width, width):
        raise ConfigurationError(f"vectors of width {width} and a Gram matrix {tuple(gram.shape)}; allowed: one width")
    if not ridge > 0.0:
        raise ConfigurationError(f"ridge is {ridge}; allowed are numbers above 0")
    x, g = vectors.detach().double(), gram.detach().double()
    damped = g + ridge * g.diagonal().mean().clamp_min(1e-12) * torch.eye(width, dtype=g.dtype, device=g.device)
    heard = x @ torch.inverse(damped)
    core = heard @ x.T
    lengths = core.diagonal().clamp_min(1e-300).sqrt()
    if float(torch.det(core / lengths[:, None] / lengths)) < _DEPENDENT:
        raise ConfigurationError(f"{count} vectors lie in fewer than {count} directions; each needs one of its own")
    return (torch.inverse(core) @ heard).float()
