"""bf16 autocast that stays fast on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from orthoplex.options import Precision

_CPU_FLAGS = {"bfloat16": ("amx_bf16", "avx512_bf16"), "float16": ("amx_fp16", "avx512_fp16")}
"""Type of numbers to the abilities of a processor, one of which makes it fast."""


@final
class Float32Attention(TorchFunctionMode):
    """Within it, ``scaled_dot_product_attention`` computes in float32, also under autocast.

    The bf16 backward pass of attention is slow on CPUs and eats what bf16 gains elsewhere. Norms of bf16 numbers take
    weights of the same type, without which torch warns of its slower form.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401  (torch's protocol)
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  (torch's protocol)
        """Compute one torch function; attention in float32, all others as they are."""
        if func is functional.rms_norm:
            first, *others = args
            named = {key: _of_type(value, first.dtype) for key, value in (kwargs or {}).items()}
            return func(first, *(_of_type(value, first.dtype) for value in others), **named)
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            raised = [_to_float32(value) for value in args]
            named = {key: _to_float32(value) for key, value in (kwargs or {}).items()}
            return func(*raised, **named)


def _of_type(value: object, dtype: torch.dtype) -> object:
    return value.to(dtype) if isinstance(value, torch.Tensor) else value


def _to_float32(value: object) -> object:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


def has_fast_bf16(device: torch.device) -> bool:
    """Return True if bf16 is known to be faster than float32: on CPUs with AMX or AVX-512 BF16, and CUDA from Ampere.

    Elsewhere it may be emulated, which is slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and "bfloat16" in cpu_types(cpu_capabilities())


def cpu_capabilities() -> Mapping[str, Any]:
    """Return what the processor can do; nothing where torch is too old to tell."""
    try:
        return torch.cpu.get_capabilities()
    except AttributeError:
        return {}


def cpu_types(capabilities: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types in which a processor computes, by what torch says of it; others are much slower there."""
    return ("float32", *(name for name, flags in _CPU_FLAGS.items() if any(capabilities.get(flag) for flag in flags)))


def chosen_precision(mixed_precision: Precision, device: torch.device) -> Precision:
    """What ``"auto"`` stands for on a device, ``"bf16"`` where it is fast, else ``"no"``; others as they are."""
    if mixed_precision != "auto":
        return mixed_precision
    return "bf16" if has_fast_bf16(device) else "no"


@contextmanager
def precision(mixed_precision: Precision, device: torch.device) -> Iterator[None]:
    """Run the block in a precision."""
    mixed_precision = chosen_precision(mixed_precision, device)
    if mixed_precision == "no":
        yield
    elif device.type == "cpu":
        with torch.autocast("cpu", torch.bfloat16), Float32Attention():
            yield
    else:
        with torch.autocast(device.type, torch.bfloat16):
            yield
