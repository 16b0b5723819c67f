"""Latents as transformers read them: squares of four positions are one token."""

from __future__ import annotations

import torch
from torch import Tensor


def packed(latents: Tensor) -> Tensor:
    """Return the tokens of latents, ``(n, c, h, w)`` to ``(n, h/2 · w/2, 4c)``, row by row."""
    count, channels, height, width = latents.shape
    squares = latents.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(count, (height // 2) * (width // 2), 4 * channels)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return the latents of tokens, ``(n, h/2 · w/2, 4c)`` to ``(n, c, h, w)``.

    Args:
        tokens: As ``packed`` returns them.
        height: h.
        width: w.
    """
    count, _, channels = tokens.shape
    squares = tokens.view(count, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(count, channels // 4, height, width)


def places(height: int, width: int, like: Tensor) -> Tensor:
    """Return the row and the column of every token of latents, behind a zero, ``(h/2 · w/2, 3)``.

    Args:
        height: h.
        width: w.
        like: Has the data type and the device.
    """
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).to(like)
