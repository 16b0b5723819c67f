"""Quantised layers: which library made them, the shape that their weights stand for, and the numbers they compute with.

The types of modules and weights are asked; the libraries themselves are imported where such a layer is at hand.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

import torch
from torch import Tensor, nn

BITSANDBYTES, TORCHAO, GGUF, QUANTO = "bitsandbytes", "torchao", "GGUF", "optimum-quanto"
_MAKERS = {
    "bitsandbytes": BITSANDBYTES,
    "torchao": TORCHAO,
    "diffusers.quantizers.gguf": GGUF,
    "optimum.quanto": QUANTO,
}
"""The module that the type of a layer or of its weight comes from -> the library, as errors name it."""


def quantisation_of(module: nn.Module) -> str | None:
    """Return the library that a layer's weight is quantised by; None for a plain weight, and for layers without one.

    Args:
        module: A layer.
    """
    weight = module._parameters.get("weight")
    if weight is None:
        return None
    for kind in (type(module), type(weight), type(weight.data)):
        for maker, name in _MAKERS.items():
            if f"{kind.__module__}.".startswith(f"{maker}."):
                return name
    return None


def library_of(network: nn.Module) -> str | None:
    """Return the library that the first quantised layer of a network is quantised by; None where all are plain."""
    return next((library for module in network.modules() if (library := quantisation_of(module)) is not None), None)


def is_quantised(network: nn.Module) -> bool:
    """Return True if any layer of a network is quantised."""
    return library_of(network) is not None


def weight_shape(module: nn.Module) -> tuple[int, ...]:
    """Return the shape of the weight that a layer computes with, however it is stored.

    Args:
        module: A layer with a weight.
    """
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.out_channels, module.in_channels // module.groups, *module.kernel_size
    return tuple(module.get_parameter("weight").shape)


def compute_dtype(network: nn.Module) -> torch.dtype:
    """Return the type of a network's first plain numbers of 16 bits or more; that of its first weight without any.

    Args:
        network: A network with weights.
    """
    types = (weight.dtype for weight in network.parameters())
    wide = (dtype for dtype in types if dtype.is_floating_point and dtype.itemsize > 1)
    return next(wide, next(network.parameters()).dtype)


@torch.no_grad()
def plain_weight(module: nn.Module) -> Tensor:
    """Return the weight that a layer computes with as plain numbers; the very tensor where it is not quantised.

    Args:
        module: A layer with a weight.
    """
    weight: Any = module.get_parameter("weight")
    match quantisation_of(module):
        case None:
            return weight.detach()
        case "bitsandbytes":
            return _of_bitsandbytes(module, weight)
        case "GGUF":
            from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

            return dequantize_gguf_tensor(weight)
        case _:
            return weight.dequantize()


def _of_bitsandbytes(module: Any, weight: Any) -> Tensor:  # noqa: ANN401  (a layer of bitsandbytes, which has no types)
    functional: Any = importlib.import_module("bitsandbytes.functional")
    if weight.dtype == torch.int8:
        scales = module.state.SCB if weight.SCB is None else weight.SCB  # a call moves them
        return functional.int8_vectorwise_dequant(weight.data, scales)
    if weight.quant_state is None:  # not on its device yet, where it is quantised
        return weight.data
    values, state = weight.data, weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):  # a call on some processors re-orders the numbers
        values, state = functional._convert_weight_packed_for_cpu_inverse(values, copy.copy(state))
        if not state.nested:  # the inverse leaves these scales in the other order
            state.absmax = state.absmax.T.reshape(-1).float()
    return functional.dequantize_4bit(values, state)
