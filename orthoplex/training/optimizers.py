"""The optimizers of a training, and their state as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from orthoplex.errors import MissingExtraError

_BETAS = (0.9, 0.99)
STATES = {"adamw": ("exp_avg", "exp_avg_sq"), "adamw-8bit": ("state1", "state2")}
"""Optimizer to the parts of its state that have a parameter's shape."""


def created(name: str, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """Return an optimizer of groups of parameters.

    Args:
        name: A name in ``STATES``.
        groups: Groups as torch's optimizers take them.

    Raises:
        MissingExtraError: If the package of the optimizer is not installed.
    """
    parts = [dict(group) for group in groups if group["params"]] if name == "adamw-8bit" else list(map(dict, groups))
    if name == "adamw":
        return torch.optim.AdamW(parts, betas=_BETAS)
    try:
        library: Any = import_module("bitsandbytes")
    except ImportError as error:
        raise MissingExtraError("the optimizer adamw-8bit", "bitsandbytes", "quantised") from error
    return library.optim.AdamW8bit(parts, betas=_BETAS)


def state_tensors(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the state of a parameter as tensors; none before its first step."""
    state = optimizer.state.get(parameter, {})
    return {key: value.detach() if isinstance(value, Tensor) else torch.tensor(value) for key, value in state.items()}


def set_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, tensors: Mapping[str, Tensor]) -> None:
    """Put back the state of a parameter, as ``state_tensors`` returned it."""
    is_torchs = isinstance(optimizer, torch.optim.AdamW)
    optimizer.state[parameter] = {
        key: (value.cpu() if is_torchs else int(value)) if key == "step" else value.to(parameter.device)
        for key, value in tensors.items()
    }
