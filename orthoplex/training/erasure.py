"""Randomized output erasure: an update shall be silent on inputs that do not hold its concept.

Activation form. With ``x`` the inputs of a layer while the base, without any adapter, works on foreign prompts, and
``G = E[x xᵀ]``,

    E‖ΔW x‖² / E‖W x‖² = tr(ΔW G ΔWᵀ) / E‖W x‖²,    ΔW = up · down.

For a frozen ``down`` the inputs enter only as ``z = down x``, and ``tr(up G_z upᵀ)`` with the ``(r, r)`` matrix
``G_z = E[z zᵀ]`` is all that is needed; a trained ``down`` needs the ``(in, in)`` matrix. Both are gathered once,
before weights learn, so the penalty costs next to nothing per step. It is the expectation over the *base's*
activations: as long as the update is silent on foreign prompts, the adapted model's activations there are the same.

The abstract of BlockLoRA (Zhu et al., arXiv 2503.08575) names the idea without its loss; this is our reading of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from orthoplex.activations.erasure_statistics import ErasureStatistics
from orthoplex.adapters import Adapter


class Erasure(Protocol):
    """A penalty that makes an update silent on foreign inputs, in either form."""

    def penalty(self, step: int) -> Tensor:
        """Return the penalty of one step, a differentiable scalar."""
        ...


@final
@dataclass(frozen=True, eq=False)
class ActivationErasure:
    """The activation form.

    Attributes:
        adapters: Layer name to adapter.
        statistics: Layer name to the statistics of its foreign inputs, for the same layers.
    """

    adapters: Mapping[str, Adapter]
    statistics: Mapping[str, ErasureStatistics]

    def penalty(self, step: int) -> Tensor:
        """Return the mean over layers of ``E‖ΔW x‖² / E‖W x‖²``; the same at every step, as it is an expectation."""
        return torch.stack([self.statistics[layer].penalty(item) for layer, item in self.adapters.items()]).mean()


def is_due(step: int, share: float) -> bool:
    """True if step ``step``, from 0, is one of the evenly spread ``share`` of steps that erasure takes part in."""
    return math.floor((step + 1) * share + 1e-9) > math.floor(step * share + 1e-9)
