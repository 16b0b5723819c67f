"""The machine that a result was computed on."""

from __future__ import annotations

import platform
from typing import Any

import torch

from orthoplex import __version__
from orthoplex.models import has_fast_bf16


def machine() -> dict[str, Any]:
    """Describe this machine: its platform, processor, threads and versions, as result files hold them."""
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "bf16": has_fast_bf16(torch.device("cpu")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "orthoplex": __version__,
    }
