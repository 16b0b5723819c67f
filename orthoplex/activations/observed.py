"""Layers of a base observed while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Observed = TypeVar("Observed", bound=nn.Module)
Observer = Callable[[str, Observed, Tensor], None]
"""Called with a layer's name, the layer, and its inputs ``(..., in)`` of one forward pass."""


@contextmanager
def observed_inputs(layers: Mapping[str, Observed], observe: Observer[Observed]) -> Iterator[None]:
    """Inside, ``observe`` is called for every forward pass of every layer named."""

    def watch(layer: str, module: Observed) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_pre_hook(lambda _, inputs: observe(layer, module, inputs[0]))

    handles = [watch(layer, module) for layer, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
