"""Latents as transformers read them: squares of positions, four in most models, are one token."""

from __future__ import annotations

import torch
from torch import Tensor


def packed(latents: Tensor, side: int = 2) -> Tensor:
    """Return the tokens of latents, ``(n, c, h, w)`` to ``(n, h/s · w/s, s² c)``, row by row.

    Args:
        latents: Their height and width are multiples of the side.
        side: s, of the squares.
    """
    count, channels, height, width = latents.shape
    squares = latents.view(count, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(count, (height // side) * (width // side), side * side * channels)


def unpacked(tokens: Tensor, height: int, width: int, side: int = 2) -> Tensor:
    """Return the latents of tokens, ``(n, h/s · w/s, s² c)`` to ``(n, c, h, w)``.

    Args:
        tokens: As ``packed`` returns them.
        height: h.
        width: w.
        side: s, of the squares.
    """
    count, _, channels = tokens.shape
    squares = tokens.view(count, height // side, width // side, channels // side**2, side, side)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(count, channels // side**2, height, width)


def places(height: int, width: int, like: Tensor, side: int = 2) -> Tensor:
    """Return the row and the column of every token of latents, behind a zero, ``(h/s · w/s, 3)``.

    Args:
        height: h.
        width: w.
        like: Has the data type and the device.
        side: s, of the squares.
    """
    rows, columns = torch.meshgrid(torch.arange(height // side), torch.arange(width // side), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).to(like)
