"""How the numbers of convolutions lie in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def channels_last(networks: Iterable[nn.Module]) -> None:
    """On a CPU, let convolutions keep the channels of a pixel together, which is faster there.

    Values are the same; what is computed from them differs by rounding. On other devices, where it is so already, and
    for convolutions of videos, this does nothing. ``python -m orthoplex.benchmark.picture_cost`` measures the gain.
    """
    for network in networks:
        is_on_cpu = next(network.parameters()).device.type == "cpu"
        if is_on_cpu and not _is_channels_last(network) and not _has_videos(network):
            _lay_out(network, torch.channels_last)


def channels_first(networks: Iterable[nn.Module]) -> None:
    """Lay the weights out as they are usually, whatever the device."""
    for network in networks:
        _lay_out(network, torch.contiguous_format)


def give_contiguous_state(network: nn.Module) -> None:
    """Let ``network.state_dict()`` give tensors as they usually lie, whatever the layout of the weights.

    safetensors' own ``save_file`` refuses others, so that a pipeline could not be saved between two pictures.
    """
    network.register_state_dict_post_hook(_contiguous)


def _contiguous(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.is_contiguous():
            state[name] = value.contiguous()


def _lay_out(network: Any, layout: torch.memory_format) -> None:  # noqa: ANN401  (torch annotates no such `to`)
    network.to(memory_format=layout)


def _is_channels_last(network: nn.Module) -> bool:
    return any(not weights.is_contiguous() for weights in network.parameters() if weights.ndim == 4)


def _has_videos(network: nn.Module) -> bool:
    return any(weights.ndim == 5 for weights in network.parameters())
