"""Weights on a grid: what ships is compressed (in a wheel, in git), and few distinct numbers take less room there.

The denoiser is trained through the rounding that it ships with: every step computes with rounded weights and moves the
exact ones (a straight-through estimator, Bengio et al. 2013, arXiv:1308.3432), so that rounding costs it little.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: grid steps in a standard deviation of the decoder's weights, which are not trained through their rounding
DECODER_STEPS = 64


def rounded(weights: Tensor, shape: torch.Size, steps: int) -> Tensor:
    """The weights of a parameter of a `shape` on their grid: multiples of a power of two; same shape as `weights`.

    The grid's step is the power of two that is nearest in ratio to a `steps`-th of the weights' standard deviation. Up
    to 256 steps from zero the results are exact in bf16, up to 2048 in fp16. Biases and norms, which are few, stay as
    they are, and so do weights that are all alike.
    """
    if len(shape) < 2:
        return weights
    deviation = weights.std(correction=0)
    step = torch.exp2(torch.round(torch.log2(deviation / steps)))
    return torch.where(deviation > 0, torch.round(weights / step) * step, weights)
