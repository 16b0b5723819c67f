"""The noise schedule of a base, and the denoising loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """``x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε`` with the cumulative products ᾱ of the base's scheduler.

    ᾱ may end at exactly 0 (zero terminal SNR, arXiv 2305.08891).

    Attributes:
        alphas: ᾱ, ``(steps,)`` float32.
        prediction_type: What the denoiser predicts: ``epsilon``, ``v_prediction`` or ``sample``.

    Raises:
        BaseModelError: When the prediction type is another, or is epsilon where ᾱ ends at 0.
    """

    alphas: Tensor
    prediction_type: str

    def __post_init__(self) -> None:
        """Refuse what no loss is defined for."""
        if self.prediction_type not in PREDICTION_TYPES:
            raise BaseModelError(
                f"scheduler predicts {self.prediction_type!r}; allowed are {', '.join(PREDICTION_TYPES)}"
            )
        if self.prediction_type == "epsilon" and bool((self.alphas <= 0).any()):
            raise BaseModelError(
                "scheduler has zero terminal SNR and predicts 'epsilon'; allowed with it are v_prediction and sample"
            )

    @staticmethod
    def of(scheduler: Any) -> "NoiseSchedule":  # noqa: ANN401  (diffusers' schedulers share no typed parent)
        """Read the schedule of a diffusers scheduler.

        Raises:
            BaseModelError: When the scheduler has no ``alphas_cumprod``, or no loss is defined for it.
        """
        try:
            alphas, prediction_type = scheduler.alphas_cumprod, scheduler.config.prediction_type
        except AttributeError as error:
            raise BaseModelError(
                f"scheduler {type(scheduler).__name__} cannot be trained with: {error}; allowed are schedulers with "
                "alphas_cumprod and a prediction_type"
            ) from error
        return NoiseSchedule(alphas.detach().cpu().float(), prediction_type)

    def __len__(self) -> int:
        """The number of timesteps."""
        return len(self.alphas)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``x_t``.

        Args:
            latents: ``x_0``, ``(b, c, h, w)``.
            noise: ε, the same shape.
            timesteps: t, ``(b,)`` int64.
        """
        signal, sigma = self._factors(timesteps, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the denoiser shall predict: ε, ``x_0``, or ``v = √ᾱ ε − √(1 − ᾱ) x_0`` (arXiv 2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal, sigma = self._factors(timesteps, latents)
        return signal * noise - sigma * latents

    def weights(self, timesteps: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weight of each item, ``(b,)``; ones where ``gamma`` is None.

        With ``SNR = ᾱ / (1 − ᾱ)``: ``min(SNR, γ)`` for sample, divided by SNR for epsilon, by ``SNR + 1`` for v.
        Reference: Hang et al., arXiv 2303.09556, section 3.4.
        """
        alphas = self.alphas.to(timesteps.device)[timesteps]
        if gamma is None:
            return torch.ones_like(alphas)
        ratio = alphas / (1.0 - alphas)
        clipped = ratio.clamp(max=gamma)
        if self.prediction_type == "epsilon":
            return clipped / ratio
        return clipped / (ratio + 1.0) if self.prediction_type == "v_prediction" else clipped

    def losses(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, gamma: float | None
    ) -> Tensor:
        """Return the weighted mean squared error of each item, ``(b,)`` float32."""
        errors = (prediction.float() - self.target(latents, noise, timesteps).float()).square()
        return errors.flatten(1).mean(1) * self.weights(timesteps, gamma)

    def _factors(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas.to(like.device)[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt().to(like.dtype), (1.0 - alphas).sqrt().to(like.dtype)
