"""Numbers as they are stored, whatever a thread is in the middle of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_numerics(device: torch.device) -> Iterator[None]:
    """Inside, there is no autocast, no inference mode and no gradient.

    A change of weights may run in the middle of another thread's picture, which has all of these.

    Args:
        device: Where the numbers are.
    """
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(kind, enabled=False):
        yield
