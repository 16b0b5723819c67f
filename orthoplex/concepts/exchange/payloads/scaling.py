"""Numbers of a payload, read exactly, and factors that go into a product with at most one rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError
from orthoplex.files import is_finite

_READ_AS = {
    torch.float8_e4m3fn: torch.float16,
    torch.float8_e5m2: torch.float16,
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
"""Type in the file -> a type that holds all its numbers and can be multiplied."""


def read_values(part: str, tensor: Tensor) -> Tensor:
    """Return the values of a part in a type that holds them exactly and can be multiplied.

    Raises:
        ConfigurationError: when the type is none of weights, or a value is not finite.
    """
    kind = _READ_AS.get(tensor.dtype)
    if kind is None:
        allowed = ", ".join(_type_name(dtype) for dtype in _READ_AS)
        raise ConfigurationError(f"{part} has type {_type_name(tensor.dtype)}; allowed are {allowed}")
    values = tensor.detach().to(kind)
    if not is_finite(values):
        number = int((~torch.isfinite(values)).sum())
        raise ConfigurationError(f"{part} has {number} of {values.numel()} values that are not finite")
    return values


def read_factor(numbers: Mapping[str, Tensor], rank: int | None, given: float | None) -> float:
    """Return what stands before the product.

    Args:
        numbers: ``alpha`` and ``scale``, as far as the file has them.
        rank: What divides alpha; None where alpha has no effect.
        given: The factor that the file says outside of its tensors; None if it says none.

    Raises:
        ConfigurationError: when a number is none that can be used, or two of them say different things.
    """
    factors = {}
    if given is not None:
        factors["the metadata's factor"] = _usable("the metadata's factor", float(given))
    if "scale" in numbers:
        factors["scale"] = _number("scale", numbers["scale"])
    if "alpha" in numbers:
        alpha = _number("alpha", numbers["alpha"])
        if rank is not None:
            factors["alpha / rank"] = alpha / rank
    values = [*factors.values()]
    if any(not math.isclose(value, values[0], rel_tol=1e-3) for value in values):
        text = ", ".join(f"{name} {value:g}" for name, value in factors.items())
        raise ConfigurationError(f"the file scales it by several factors: {text}; allowed is one")
    return values[0] if values else 1.0


def scaled(values: Tensor, factor: float) -> Tensor:
    """Return ``factor · values``: in the type of ``values`` where that is exact, else rounded once to float32.

    Raises:
        ConfigurationError: when a value becomes too large for float32.
    """
    if values.dtype != torch.float64:
        if factor == 1:
            return values
        if abs(math.frexp(factor)[0]) == 0.5:
            product = values * factor
            if torch.equal(product.double() / factor, values.double()):
                return product
    return rounded(values.double() * factor)


def rounded(values: Tensor) -> Tensor:
    """Return float64 values as float32, rounded once; other types as they are.

    Raises:
        ConfigurationError: when a value becomes too large for float32.
    """
    if values.dtype != torch.float64:
        return values
    result = values.float()
    if not is_finite(result):
        raise ConfigurationError(f"a value of {float(values.abs().max()):g} is too large for float32")
    return result


def _number(name: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or tensor.is_complex():
        raise ConfigurationError(f"{name} has shape {tuple(tensor.shape)}; allowed is one number")
    return _usable(name, float(tensor.double().item()))


def _usable(name: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name} is {value:g}; allowed are finite numbers above 0")
    return value


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
