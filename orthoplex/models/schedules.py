"""The noise schedules of bases: times, noised latents, targets and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
_PURE_NOISE = 1e-6
"""The largest ᾱ that counts as none: some schedulers take 2^-24 for 0, so that σ is a number."""


@final
@dataclass(frozen=True)
class Sampler:
    """A scheduler in words.

    Attributes:
        kind: Its class.
        prediction_type: What the denoiser predicts, as ``epsilon``.
    """

    kind: str
    prediction_type: str


class Schedule(ABC):
    """How a base mixes latents with noise, and what its denoiser predicts of the mixture.

    Times are ``(b,)`` tensors that only the schedule and its family read: numbers of steps, or shares of the noise.
    """

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator, *, earliest: float = 0.0) -> Tensor:
        """Draw times, ``(count,)``, as the base was trained on them.

        Args:
            count: How many.
            generator: Decides them; on the CPU.
            earliest: Share of the schedule that is left out: 0 draws all times, 0.8 the noisiest fifth.
        """

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the latents at the given times.

        Args:
            latents: ``x_0``, ``(b, c, h, w)``.
            noise: ε, the same shape.
            times: ``(b,)``.
        """

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the values that the denoiser shall predict, ``(b, c, h, w)``."""

    @abstractmethod
    def weights(self, times: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weight of each item's loss, ``(b,)``; ones where ``gamma`` is None."""

    def losses(
        self,
        prediction: Tensor,
        latents: Tensor,
        noise: Tensor,
        times: Tensor,
        gamma: float | None,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted mean squared error of each item, ``(b,)`` float32.

        Args:
            prediction: The output of the denoiser, ``(b, c, h, w)``.
            latents: ``x_0``, the same shape.
            noise: ε, the same shape.
            times: ``(b,)``.
            gamma: The largest signal-to-noise ratio that counts; None for uniform weights.
            shares: How much each position counts, ``(b, 1, h, w)``, on average 1; None where all count alike.
        """
        errors = (prediction.float() - self.target(latents, noise, times).float()).square()
        errors = errors if shares is None else errors * shares
        return errors.flatten(1).mean(1) * self.weights(times, gamma)


def check_schedule(scheduler: Any) -> None:  # noqa: ANN401  (diffusers' schedulers share no typed parent)
    """Refuse a scheduler without a discrete schedule: ᾱ of each timestep, and the kind of the prediction.

    Raises:
        BaseModelError: When it has none, or numbers that are no shares, or predicts what nothing here does.
    """
    name = type(scheduler).__name__
    try:
        alphas, prediction_type = scheduler.alphas_cumprod, scheduler.config.prediction_type
        steps = scheduler.config.num_train_timesteps
    except AttributeError as error:
        raise BaseModelError(
            f"scheduler {name} is of no discrete schedule: {error}; allowed are schedulers with alphas_cumprod, "
            "prediction_type and num_train_timesteps, as DDIMScheduler"
        ) from error
    _check_prediction_type(prediction_type)
    if not isinstance(alphas, Tensor) or alphas.shape != (steps,):
        count = alphas.numel() if isinstance(alphas, Tensor) else 0
        raise BaseModelError(f"scheduler {name} has {count} betas; allowed are a list of {steps}, num_train_timesteps")
    if not bool(((alphas >= 0) & (alphas <= 1)).all()) or not len(alphas):
        raise BaseModelError(
            f"scheduler {name} has alphas_cumprod outside 0 to 1; allowed are beta_start and beta_end within 0 to 1"
        )


def _check_prediction_type(prediction_type: object) -> None:
    if prediction_type not in PREDICTION_TYPES:
        raise BaseModelError(f"scheduler predicts {prediction_type!r}; allowed are {', '.join(PREDICTION_TYPES)}")


@final
@dataclass(frozen=True, eq=False)
class DiscreteSchedule(Schedule):
    """``x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε`` with the cumulative products ᾱ of the base's scheduler.

    Times are numbers of steps, int64. ᾱ may end at exactly 0 (zero terminal SNR, arXiv 2305.08891).

    Attributes:
        alphas: ᾱ, ``(steps,)`` float32.
        prediction_type: What the denoiser predicts: ``epsilon``, ``v_prediction`` or ``sample``.

    Raises:
        BaseModelError: When the prediction type is another, or is epsilon where ᾱ ends at 0.
    """

    alphas: Tensor
    prediction_type: str

    def __post_init__(self) -> None:
        """Refuse a schedule that no loss is defined for."""
        _check_prediction_type(self.prediction_type)
        if self.prediction_type == "epsilon" and bool((self.alphas <= 0).any()):
            raise BaseModelError(
                "scheduler has zero terminal SNR and predicts 'epsilon'; allowed with it are v_prediction and sample"
            )

    @staticmethod
    def of(scheduler: Any) -> DiscreteSchedule:  # noqa: ANN401  (diffusers' schedulers share no typed parent)
        """Read the schedule of a diffusers scheduler.

        Raises:
            BaseModelError: When the scheduler has no ``alphas_cumprod``, or no loss is defined for it.
        """
        check_schedule(scheduler)
        return DiscreteSchedule(scheduler.alphas_cumprod.detach().cpu().float(), scheduler.config.prediction_type)

    def __len__(self) -> int:
        """The number of timesteps."""
        return len(self.alphas)

    def draw(self, count: int, generator: torch.Generator, *, earliest: float = 0.0) -> Tensor:
        """Draw numbers of steps, ``(count,)`` int64, all as likely."""
        return torch.randint(int(earliest * len(self)), len(self), (count,), generator=generator)

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return ``x_t``, ``(b, c, h, w)``."""
        signal, sigma = self._factors(times, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return what the denoiser shall predict: ε, ``x_0``, or ``v = √ᾱ ε − √(1 − ᾱ) x_0`` (arXiv 2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal, sigma = self._factors(times, latents)
        return signal * noise - sigma * latents

    def weights(self, times: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weight of each item, ``(b,)``; ones where ``gamma`` is None.

        With ``SNR = ᾱ / (1 − ᾱ)``: ``min(SNR, γ)`` for sample, divided by SNR for epsilon, by ``SNR + 1`` for v.
        Reference: Hang et al., arXiv 2303.09556, section 3.4.
        """
        alphas = self.alphas.to(times.device)[times]
        if gamma is None:
            return torch.ones_like(alphas)
        ratio = alphas / (1.0 - alphas)
        clipped = ratio.clamp(max=gamma)
        if self.prediction_type == "epsilon":
            return clipped / ratio
        return clipped / (ratio + 1.0) if self.prediction_type == "v_prediction" else clipped

    def _factors(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas.to(like.device)[times].view(-1, 1, 1, 1)
        return alphas.sqrt().to(like.dtype), (1.0 - alphas).sqrt().to(like.dtype)


def set_schedule(pipeline: Any, settings: Mapping[str, object]) -> None:  # noqa: ANN401  (pipelines share no parent)
    """Give the scheduler of a pipeline other settings.

    Args:
        pipeline: Of discrete timesteps.
        settings: Name to value, as ``prediction_type``.

    Raises:
        BaseModelError: If ᾱ of the last timestep shall be zero, and the scheduler cannot, or the denoiser predicts ε.
    """
    scheduler = type(pipeline.scheduler).from_config({**pipeline.scheduler.config, **settings})
    if settings.get("rescale_betas_zero_snr"):
        name, predicted = type(scheduler).__name__, scheduler.config.prediction_type
        if predicted == "epsilon":
            raise BaseModelError(
                "the last timestep is pure noise (ztsnr), and its settings predict epsilon, of which no picture "
                "follows there; allowed are settings that predict v_prediction"
            )
        if float(scheduler.alphas_cumprod[-1]) > _PURE_NOISE:
            raise BaseModelError(
                f"the last timestep is pure noise (ztsnr), which the {name} of its settings cannot do; allowed are "
                "settings with a scheduler that can, as EulerDiscreteScheduler or DDIMScheduler"
            )
    pipeline.register_modules(scheduler=scheduler)
