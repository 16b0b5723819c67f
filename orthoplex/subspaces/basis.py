"""The shared orthonormal basis: one square matrix per width that every installation rebuilds identically."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError
from orthoplex.subspaces.stream import draw_subset, hash_words

BASIS_ID = "dct2-sha256-v1"


def shared_basis_rows(width: int, rows: Sequence[int] | Tensor) -> Tensor:
    """Return rows of the shared orthonormal basis of one width.

    ``Q[i, j] = s_j · c_k · cos(π (2j + 1) k / 2n)`` with ``k = permutation[i]``, ``c_0 = √(1/n)``, else ``√(2/n)``:
    the DCT-II with column signs ``s`` and a row permutation from SHA-256. No entry exceeds ``√(2/n)`` in size, so
    every row spreads over all inputs at least as evenly as a row of a random rotation. The cosines are looked up by
    their exact phase, an integer, so nothing depends on a random generator or a linear algebra library.

    Args:
        width: n, the inputs of the layer.
        rows: r indices of 0 … n − 1.

    Returns:
        ``(r, n)`` float32, orthonormal.

    Raises:
        ConfigurationError: when the width is below 1 or a row lies outside the basis.
    """
    if width < 1:
        raise ConfigurationError(f"the width of a basis is {width}; allowed are whole numbers from 1")
    indices = torch.as_tensor(rows, dtype=torch.int64, device="cpu").reshape(-1)
    outside = indices[(indices < 0) | (indices >= width)]
    if outside.numel():
        raise ConfigurationError(f"row {int(outside[0])} of a basis of width {width}; allowed are 0 to {width - 1}")
    cosines, signs, permutation = _parts(width)
    frequencies = permutation[indices][:, None]
    phases = (2 * torch.arange(width)[None, :] + 1) * frequencies % (4 * width)
    amplitudes = torch.full((len(indices), 1), math.sqrt(2.0 / width), dtype=torch.float64)
    amplitudes[frequencies == 0] = math.sqrt(1.0 / width)
    return (cosines[phases] * amplitudes * signs).float()


def shared_basis(width: int) -> Tensor:
    """Return the whole shared basis, ``(width, width)`` float32."""
    return shared_basis_rows(width, range(width))


@lru_cache(maxsize=32)
def _parts(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return cos(2π p / 4n) for all 4n phases p, the column signs, and the row permutation."""
    cosines = torch.tensor([_cosine(phase, width) for phase in range(4 * width)], dtype=torch.float64)
    sign_words = hash_words(BASIS_ID, "signs", str(width))
    signs = torch.tensor([1.0 - 2.0 * (next(sign_words) >> 63) for _ in range(width)], dtype=torch.float64)
    permutation = draw_subset(hash_words(BASIS_ID, "rows", str(width)), width, width)
    return cosines, signs, torch.tensor(permutation, dtype=torch.int64)


def _cosine(phase: int, width: int) -> float:
    """Return cos(2π phase / 4 width), reduced by symmetry to the first octant: equal angles give equal bits."""
    phase = min(phase, 4 * width - phase)
    if phase > width:
        return -_cosine(2 * width - phase, width)
    if 2 * phase > width:
        return math.sin(math.pi * (width - phase) / (2 * width))
    return math.cos(math.pi * phase / (2 * width))
