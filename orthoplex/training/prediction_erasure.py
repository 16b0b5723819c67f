"""Randomized output erasure, prediction form: on foreign inputs the concept shall predict what the base predicts.

``‖ε_{θ+Δ}(z, t, c) − ε_θ(z, t, c)‖²``, mean over numbers, for foreign prompts c, noised latents z and timesteps t. The
base's predictions are computed once, before weights learn; a step then takes a few foreign inputs more through the
network. Unlike the activation form, this form sees the effect of all layers together, and costs as much as they do.

The abstract of BlockLoRA (Zhu et al., arXiv 2503.08575) names the idea without its loss; this is our second reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.activations.foreign_inputs import ForeignInputs
from orthoplex.models import Base, precision
from orthoplex.subspaces import seeded
from orthoplex.training.config import TrainingConfig


@final
@dataclass(frozen=True, eq=False)
class PredictionErasure:
    """Foreign inputs and the base's own predictions for them.

    Attributes:
        base: The base; adapters are attached to it while it trains.
        config: For the seed, the precision and how many inputs a step takes.
        inputs: Foreign inputs.
        targets: The base's predictions, ``(n, c, h, w)`` float32.
        tokens: The names of the concept's tokens.
        identity: Text that the draws depend on, besides seed and step.
    """

    base: Base
    config: TrainingConfig
    inputs: ForeignInputs
    targets: Tensor
    tokens: Sequence[str]
    identity: str

    @staticmethod
    @torch.no_grad()
    def prepare(
        base: Base, config: TrainingConfig, inputs: ForeignInputs, tokens: Sequence[str], identity: str
    ) -> "PredictionErasure":
        """Let the base, with no adapter attached, predict all foreign inputs."""
        targets = []
        with precision(config.mixed_precision, base.device):
            for chosen in torch.arange(len(inputs)).split(config.batch_size):
                targets.append(inputs.take(chosen).predict(base, tokens).float())
        return PredictionErasure(base, config, inputs, torch.cat(targets), tokens, identity)

    def penalty(self, step: int) -> Tensor:
        """Return the mean squared difference to the base on this step's foreign inputs, a differentiable scalar."""
        generator = seeded("foreign inputs", self.identity, self.config.seed, step)
        chosen = torch.randperm(len(self.inputs), generator=generator)[: self.config.erasure_batch_size]
        with precision(self.config.mixed_precision, self.base.device):
            predicted = self.inputs.take(chosen).predict(self.base, self.tokens)
        return (predicted.float() - self.targets[chosen.to(self.targets.device)]).square().mean()
