"""The schedule of flow matching: straight lines from pictures to noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError
from orthoplex.models.schedules import Schedule

NUM_TIMES = 1000
"""Times of pure noise, as denoisers of flow matching and their schedulers count."""


def check_flow_scheduler(scheduler: Any) -> None:  # noqa: ANN401  (diffusers' schedulers share no typed parent)
    """Refuse a scheduler that is none of flow matching.

    Raises:
        BaseModelError: Names its class and what is allowed.
    """
    name = type(scheduler).__name__
    if name != "FlowMatchEulerDiscreteScheduler":
        raise BaseModelError(f"scheduler is a {name}; allowed is FlowMatchEulerDiscreteScheduler")
    if scheduler.config.num_train_timesteps != NUM_TIMES:
        raise BaseModelError(
            f"scheduler num_train_timesteps is {scheduler.config.num_train_timesteps!r}; allowed is {NUM_TIMES}"
        )
    for setting in ("invert_sigmas", "stochastic_sampling"):
        if scheduler.config.get(setting):
            raise BaseModelError(f"scheduler {setting} is {scheduler.config[setting]!r}; allowed is false")


@final
@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """``x_σ = (1 − σ) x_0 + σ ε``; the denoiser predicts the velocity ``ε − x_0`` (Liu et al., arXiv 2209.03003).

    Times are ``1000 σ``, float32. σ is drawn from the logit-normal distribution of mean 0 and deviation 1 (Esser et
    al., arXiv 2403.03206, section 3.1), then shifted: ``σ' = s σ / (1 + (s − 1) σ)``.

    Attributes:
        shift: s; 1 leaves σ as it is drawn.
    """

    shift: float = 1.0

    @staticmethod
    def of(scheduler: Any) -> FlowSchedule:  # noqa: ANN401  (diffusers' schedulers share no typed parent)
        """Read the schedule of a diffusers scheduler; a shift that depends on the size of pictures is for drawing only.

        Raises:
            BaseModelError: When the scheduler is none of flow matching.
        """
        check_flow_scheduler(scheduler)
        return FlowSchedule(1.0 if scheduler.config.use_dynamic_shifting else float(scheduler.config.shift))

    def draw(self, count: int, generator: torch.Generator, *, earliest: float = 0.0) -> Tensor:
        """Draw times, ``(count,)``; ``earliest`` is the share of the draws, from the least noise on, left out."""
        shares = earliest + (1.0 - earliest) * torch.rand(count, generator=generator, dtype=torch.float64)
        sigmas = torch.special.ndtri(shares.clamp(1e-6, 1.0 - 1e-6)).sigmoid()
        sigmas = self.shift * sigmas / (1.0 + (self.shift - 1.0) * sigmas)
        return (NUM_TIMES * sigmas).float()

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return ``x_σ``, ``(b, c, h, w)``."""
        sigmas = _sigmas(times, latents)
        return (1.0 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the velocity ``ε − x_0``."""
        return noise - latents

    def weights(self, times: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weight of each item, ``(b,)``; ones where ``gamma`` is None.

        An error e of the velocity is an error ``σ e`` of x_0, and ``SNR = ((1 − σ) / σ)²``: the weight is
        ``min(SNR, γ) σ²``. Reference: Hang et al., arXiv 2303.09556, section 3.4.
        """
        sigmas = times / NUM_TIMES
        if gamma is None:
            return torch.ones_like(sigmas)
        return torch.minimum((1.0 - sigmas).square(), gamma * sigmas.square())


def _sigmas(times: Tensor, like: Tensor) -> Tensor:
    return (times.to(like.device) / NUM_TIMES).view(-1, *(1,) * (like.ndim - 1)).to(like.dtype)
