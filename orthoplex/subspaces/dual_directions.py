"""Dual directions: rows with a large response to some inputs and the least possible response to all others."""

from typing import cast

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError


def dual_rows(inputs: Tensor, gram: Tensor, *, count: int, ridge: float) -> Tensor:
    """Return the rows d with the largest ratio of their response to the inputs to their response to all others.

    The ratio is ``λ = E[(dᵀx)²] / dᵀĜd`` with ``Ĝ = G + ridge · mean(diag G) · I``; its stationary points are the
    generalised eigenvectors of ``E[x xᵀ]`` and Ĝ. They are scaled to ``E[(dᵀx)²] = 1``, so ``1/λ`` is the leak. For
    a single input x the row is its dual direction ``d = Ĝ⁻¹x / xᵀĜ⁻¹x``. Rows whose leak exceeds their
    response (λ < 1) are zero.

    Args:
        inputs: x, ``(n, in)``: the inputs to respond to.
        gram: ``G = E[x xᵀ]`` of all other inputs, ``(in, in)``.
        count: How many rows, at most n.
        ridge: Above 0; keeps rows short in directions that G does not cover.

    Returns:
        ``(count, in)`` float32, the clearest first.

    Raises:
        ConfigurationError: When the shapes do not fit, the count is not 1 … n, or the ridge is not above 0.
    """
    number, width = inputs.shape
    if gram.shape != (width, width):
        raise ConfigurationError(f"inputs of width {width} and a Gram matrix {tuple(gram.shape)}; allowed: one width")
    if not 1 <= count <= number:
        raise ConfigurationError(
            f"{count} dual directions of {number} inputs were asked for; allowed are 1 to {number}"
        )
    if not ridge > 0.0:
        raise ConfigurationError(f"ridge is {ridge}; allowed are numbers above 0")
    x, g = inputs.detach().double(), gram.detach().double()
    damped = g + ridge * g.diagonal().mean().clamp_min(1e-12) * torch.eye(width, dtype=g.dtype, device=g.device)
    solved = x @ torch.inverse(damped)
    core = solved @ x.T / number
    values, vectors = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(core))  # pyright: ignore  # not annotated
    ratios, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    rows = vectors.T @ solved / (ratios[:, None].clamp_min(1e-300) * number**0.5)
    return torch.where(ratios[:, None] >= 1.0, rows, 0.0).float()
