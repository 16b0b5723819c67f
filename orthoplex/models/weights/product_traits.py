"""What matrix products of a type do on a device, asked of the device itself: libraries and settings differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

LEAST_PRODUCT = 1 << 17
"""Multiplications of the smallest products that are tried."""
_SHAPES = ((64, 128, 16), (320, 320, 4), (320, 320, 80), (320, 768, 40), (640, 640, 300))
"""``(out, in, R)`` of the products that are tried."""
_MOST_ERROR = 1.05


@final
@dataclass(frozen=True)
class ProductTraits:
    """What was measured.

    Attributes:
        is_exact: True if ``W + up · down`` is accumulated in float32 and rounded once, by its error against float64.
        batch_step: A product has the same bits in every batch of so many, or a multiple. It is 1 where batches do not
            matter, and the number of threads where they share the work of those that are left over; 0 if there is none.
    """

    is_exact: bool
    batch_step: int


def traits_of(dtype: torch.dtype, device: torch.device) -> ProductTraits:
    """Return the traits of products; they are measured once for a type, a device and a number of threads.

    On other devices than a CPU no batches are taken for the same: their libraries choose a kernel for each size.
    """
    return _measured(dtype, device, torch.get_num_threads())


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, products of float32 are made of float32, whatever ``torch.set_float32_matmul_precision`` allows."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@lru_cache(maxsize=64)
@torch.no_grad()
def _measured(dtype: torch.dtype, device: torch.device, threads: int) -> ProductTraits:
    generator = torch.Generator().manual_seed(0)
    is_exact = True
    steps = list(dict.fromkeys((1, threads))) if device.type == "cpu" else []
    for out_features, in_features, rank in _SHAPES:
        weights, ups, downs = (
            (torch.randn(4 * threads, *shape, generator=generator) * scale).to(device, dtype)
            for shape, scale in (
                ((out_features, in_features), 1.0),
                ((out_features, rank), 0.1),
                ((rank, in_features), 0.1),
            )
        )
        sums, products = weights.clone().baddbmm_(ups, downs), ups.bmm(downs)
        steps = [step for step in steps if _are_same(step, (weights, ups, downs), (sums, products))]
        if dtype.itemsize < torch.float32.itemsize:
            is_exact = is_exact and _is_rounded_once(sums, weights, ups, downs)
    return ProductTraits(is_exact, min(steps, default=0))


def _are_same(step: int, given: tuple[Tensor, Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    """True if batches of one step, and of three, have the bits of one large batch."""
    for size in (step, 3 * step):
        pieces = list(zip(*(part[: 3 * step].split(size) for part in given), strict=True))
        sums = torch.cat([weights.clone().baddbmm_(ups, downs) for weights, ups, downs in pieces])
        products = torch.cat([ups.bmm(downs) for _, ups, downs in pieces])
        if not (torch.equal(sums, expected[0][: 3 * step]) and torch.equal(products, expected[1][: 3 * step])):
            return False
    return True


def _is_rounded_once(sums: Tensor, weights: Tensor, ups: Tensor, downs: Tensor) -> bool:
    """True if the error is that of one rounding of the exact sum."""
    exact = weights.double() + ups.double() @ downs.double()
    floor = (exact.to(sums.dtype).double() - exact).norm()
    return bool((sums.double() - exact).norm() <= _MOST_ERROR * floor)
