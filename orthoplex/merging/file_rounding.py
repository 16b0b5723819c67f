"""Rounding of a merged file to half precision: measured before it is written, and as small as the type allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging.file_layers import Lazy

_TOLERATED = 1.1
"""The largest rounding of a layer, beside one rounding without the type's smallest numbers, that counts as none."""
_DIGITS = {torch.float16: 11, torch.bfloat16: 8}
_EXACT_COST = 1e8
"""Multiplications up to which a norm is computed; above, it is estimated from ``_PROBES`` random vectors."""
_PROBES = 16


@final
@dataclass(frozen=True)
class Rounding:
    """What a type rounds in a file.

    Attributes:
        error: ``‖rounded − ΔW‖_F / ‖ΔW‖_F`` over all layers, biases and norms.
        excess: The largest ratio, over the layers, of the error to that of a type with the same digits and no smallest
            or largest number; infinite where a number is beyond the type's range.
    """

    error: float
    excess: float

    @property
    def is_fit(self) -> bool:
        """True if the type costs no more than its digits."""
        return self.excess <= _TOLERATED


def fitted(lora: LoraFile, dtype: torch.dtype) -> tuple[LoraFile, Rounding]:
    """Return a file as it is rounded best to a half-precision type, and what the rounding then costs.

    Where numbers are too small or too large for the type, powers of two go from one factor to the other, which
    changes no product. Layers with equal rows of ``down`` keep them equal.

    Args:
        lora: The file; every layer is read two times, or four.
        dtype: float16 or bfloat16.
    """
    rounding = rounding_of(lora, dtype)
    if rounding.is_fit:
        return lora, rounding
    balanced = _balanced(lora)
    return balanced, rounding_of(balanced, dtype)


def rounded(lora: LoraFile, dtype: torch.dtype) -> LoraFile:
    """Return the file with all numbers of a type; each layer is rounded when it is asked for."""

    def layer(name: str) -> LowRank:
        change = lora.layers[name]
        return LowRank(change.up.to(dtype), change.down.to(dtype))

    differences = Lazy(list(lora.differences), lambda name: lora.differences[name].to(dtype))
    return replace(lora, layers=Lazy(list(lora.layers), layer), differences=differences)


def rounding_of(lora: LoraFile, dtype: torch.dtype) -> Rounding:
    """Measure what a half-precision type rounds in a file; see ``Rounding``."""
    error = total = excess = 0.0
    generator = torch.Generator().manual_seed(0)
    for own, floor, size in _energies(lora, dtype, generator):
        error, total = error + own, total + size
        ratio = 1.0 if own <= floor else math.sqrt(own / floor) if floor else math.inf
        excess = max(excess, ratio if math.isfinite(own) else math.inf)
    return Rounding(math.sqrt(error / total) if total else 0.0, excess)


def nearest(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers in float64, rounded to the digits of a type without a smallest or largest number."""
    if dtype not in _DIGITS:
        return tensor.to(dtype).double()
    mantissa, exponent = torch.frexp(tensor.double())
    return torch.ldexp(torch.round(mantissa * 2.0 ** _DIGITS[dtype]) / 2.0 ** _DIGITS[dtype], exponent)


def _energies(lora: LoraFile, dtype: torch.dtype, generator: torch.Generator) -> Iterator[tuple[float, float, float]]:
    """The squared error, the same without the type's limits, and the squared size, of every layer and parameter."""
    for change in (lora.layers[layer] for layer in lora.layers):
        up, down = change.up.double(), change.down.double()
        own = _norm(
            [change.up.to(dtype).double() - up, up],
            [change.down.to(dtype).double(), change.down.to(dtype).double() - down],
            generator,
        )
        limitless = [nearest(up, dtype), nearest(down, dtype)]
        floor = _norm([limitless[0] - up, up], [limitless[1], limitless[1] - down], generator)
        yield own, floor, _norm([up], [down], generator)
    for tensor in (lora.differences[name] for name in lora.differences):
        exact = tensor.double()
        own = (tensor.to(dtype).double() - exact).square().sum()
        yield float(own), float((nearest(exact, dtype) - exact).square().sum()), float(exact.square().sum())


def _norm(ups: list[Tensor], downs: list[Tensor], generator: torch.Generator) -> float:
    """``‖Σ up_i · down_i‖²``, or an estimate of it."""
    up, down = torch.cat(ups, 1), torch.cat(downs, 0)
    if not bool(up.any()) or not bool(down.any()):
        return 0.0
    if (len(up) + down.shape[1]) * up.shape[1] ** 2 <= _EXACT_COST:
        return max(0.0, float(((up.T @ up) * (down @ down.T)).sum()))
    signs = torch.randint(0, 2, (down.shape[1], _PROBES), generator=generator).double() * 2 - 1
    return float((up @ (down @ signs)).square().sum()) / _PROBES


def _balanced(lora: LoraFile) -> LoraFile:
    """The same changes; every row of ``down`` and its columns of ``up`` have largest numbers of nearly one size."""
    sizes: dict[int, tuple[float, float]] = {}
    for layer in lora.layers:
        change = lora.layers[layer]
        for key, up, down in zip(_rows(change), *_largest(change), strict=True):
            sizes[key] = (max(up, sizes.get(key, (0.0, 0.0))[0]), down)

    def scaled(layer: str) -> LowRank:
        change = lora.layers[layer]
        powers = torch.tensor([_power(*sizes[key]) for key in _rows(change)], dtype=torch.float64)
        return LowRank(
            torch.ldexp(change.up.double(), -powers).float(), torch.ldexp(change.down.double(), powers[:, None]).float()
        )

    layers: Mapping[str, LowRank] = Lazy(list(lora.layers), scaled)
    return replace(lora, layers=layers)


def _rows(change: LowRank) -> list[int]:
    """A number for the content of every row of ``down``."""
    return [hash(row.numpy().tobytes()) for row in change.down.float()]


def _largest(change: LowRank) -> tuple[list[float], list[float]]:
    return change.up.abs().amax(0).tolist(), change.down.abs().amax(1).tolist()


def _power(up: float, down: float) -> int:
    """The power of two by which ``down`` grows and ``up`` shrinks."""
    return round((math.log2(up) - math.log2(down)) / 2) if up and down else 0
