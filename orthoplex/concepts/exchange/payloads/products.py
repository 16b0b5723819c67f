"""Sides of a product of two changes, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from orthoplex.concepts.exchange.payloads.scaling import rounded


def side_factors(a: Tensor, b: Tensor, core: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return one side as ``up (out, r)`` and ``down (r, in · height · width)``, float64.

    Args:
        a: ``(out, r)``; ``(r, out)`` where there is a core.
        b: ``(r, in · height · width)``; ``(r, in)`` where there is a core.
        core: ``(r, r, height, width)``: ``W[o, n, …] = Σ_ij a[i, o] core[i, j, …] b[j, n]``; None for ``W = a · b``.
    """
    a, b = a.double().flatten(1), b.double().flatten(1)
    if core is None:
        return a, b
    return a.T.contiguous(), torch.einsum("ij...,jn->in...", core.double(), b).flatten(1)


def whole(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a float64 matrix in the shape of its parameter, rounded once to float32."""
    return rounded(matrix).reshape(shape)
