"""Weights on a grid: what ships is compressed (in a wheel, in git), and few distinct numbers take less room there.

The denoiser is trained through the rounding that it ships with: every step computes with rounded weights and moves the
exact ones (a straight-through estimator, Bengio et al. 2013, arXiv:1308.3432), so that rounding costs it little.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: grid steps in a weight's standard deviation: of the denoiser, which is trained so, and of the decoder, which is not
TRAINED_STEPS, UNTRAINED_STEPS = 16, 64


def rounded(weights: Tensor, steps: int) -> Tensor:
    """The nearest multiples of a power of two, the one nearest to a `steps`-th of the weights' standard deviation.

    Of any shape and floating type; up to 256 steps from zero they are exact in bf16, up to 2048 in fp16. Weights that
    are all alike stay as they are.
    """
    deviation = weights.std(correction=0)
    if deviation == 0:
        return weights
    step = torch.exp2(torch.round(torch.log2(deviation / steps)))
    return torch.round(weights / step) * step
