"""Layers of a base observed while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Observer = Callable[[str, nn.Linear, Tensor], None]
"""Called with a layer's name, the layer, and its inputs ``(..., in)`` of one forward pass."""


@contextmanager
def observed_inputs(linears: Mapping[str, nn.Linear], observe: Observer) -> Iterator[None]:
    """Inside, ``observe`` is called for every forward pass of every layer named."""

    def watch(layer: str, linear: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        return linear.register_forward_pre_hook(lambda module, inputs: observe(layer, linear, inputs[0]))

    handles = [watch(layer, linear) for layer, linear in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
