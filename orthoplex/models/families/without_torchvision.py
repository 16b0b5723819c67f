"""What diffusers' Cosmos transformer needs of torchvision: it resizes a mask, and fails where that is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from torch import Tensor, nn

from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers import transformer_cosmos
    from diffusers.utils.import_utils import is_torchvision_available


def complete_cosmos() -> None:
    """Let the transformer resize masks without torchvision, by the same numbers."""
    if not is_torchvision_available():
        transforms = SimpleNamespace(
            functional=SimpleNamespace(resize=_resized), InterpolationMode=SimpleNamespace(NEAREST="nearest")
        )
        transformer_cosmos.__dict__["transforms"] = transforms


def _resized(values: Tensor, size: Sequence[int], interpolation: str) -> Tensor:
    return nn.functional.interpolate(values, size=tuple(size), mode=interpolation)
