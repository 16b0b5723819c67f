"""How the numbers of convolutions lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from orthoplex.models.pipelines import StableDiffusionPipeline


@contextmanager
def channels_last(pipeline: StableDiffusionPipeline) -> Iterator[None]:
    """Inside, on a CPU, convolutions keep the channels of a pixel together, which is faster there.

    Values are the same; what is computed from them differs by rounding. Leaving lays the weights out as they usually
    are, because safetensors' own ``save_file`` refuses others. On other devices, and within itself, it does
    nothing. ``python -m orthoplex.benchmark.picture_cost`` measures what it gains.
    """
    turned = [
        network
        for network in (pipeline.unet, pipeline.vae)
        if next(network.parameters()).device.type == "cpu" and not _is_turned(network)
    ]
    try:
        for network in turned:
            network.to(memory_format=torch.channels_last)
        yield
    finally:
        for network in turned:
            network.to(memory_format=torch.contiguous_format)


def _is_turned(network: nn.Module) -> bool:
    return any(not weights.is_contiguous() for weights in network.parameters() if weights.ndim == 4)
