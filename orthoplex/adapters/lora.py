"""Plain LoRA, the common baseline: both factors are trained."""

import math
from typing import final

import torch
from torch import Tensor, nn

from orthoplex.adapters.adapter import Adapter, AdapterConfig, Site


@final
class Lora(Adapter):
    """``ΔW = (alpha / rank) · up · down``, both trained; ``up`` from zero.

    ``down`` starts uniform in ``±1/√in`` (``kaiming_uniform`` with ``a = √5``), as in PEFT.
    Reference: Hu et al., LoRA, arXiv 2106.09685, section 4.1.
    """

    @classmethod
    def owns_slot(cls, config: AdapterConfig) -> bool:
        """Return False: every concept trains directions of its own."""
        return False

    def _initial_down(self, config: AdapterConfig, site: Site) -> Tensor:
        bound = 1.0 / math.sqrt(site.in_features)
        uniform = torch.rand(config.rank_of(site.in_features), site.in_features, generator=site.generator())
        return (2.0 * uniform - 1.0) * bound

    def _set_down(self, down: Tensor) -> None:
        self.down = nn.Parameter(down)
