"""What training loops keep between runs: network, optimizer, averaged weights, and how far they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orthoplex.files import written_atomically

Average = dict[str, Tensor]


def begin_average(model: nn.Module) -> Average:
    """A copy of the weights as they are now."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def update_average(average: Average, model: nn.Module, decay: float) -> None:
    """In place: `average = decay · average + (1 − decay) · weights`."""
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    torch._foreach_lerp_([average[name] for name in state], list(state.values()), 1 - decay)


def save(path: Path, state: dict[str, object]) -> None:
    """Write `state` whole or not at all; it is on the disk when this returns."""
    with written_atomically(path) as temporary:
        torch.save(state, temporary)
        _flush(temporary)
    _flush(path.parent)  # the new name


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def digest(data: bytes) -> str:
    """Stands for bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def kept_value(path: Path, name: str) -> int | str | None:
    """What a checkpoint keeps under a name; None where there is no such thing, or no checkpoint."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(name) if path.exists() else None


def kept_number(path: Path, name: str) -> int:
    """A number that a checkpoint keeps, such as how far it is; 0 where there is no checkpoint."""
    return int(kept_value(path, name) or 0)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, progress: dict[str, Any]
) -> None:
    """Write everything atomically; `progress` is what `load_checkpoint` gives back."""
    save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average, **progress})


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: str
) -> tuple[Average, dict[str, Any]]:
    """Restore network and optimizer; returns the averaged weights and the progress."""
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return state.pop("average"), state
