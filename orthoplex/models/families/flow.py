"""Bases of flow matching: transformers that predict the velocity from pictures to noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from orthoplex.errors import ConfigurationError
from orthoplex.files import without_warnings
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.latent import LatentFamily
from orthoplex.models.families.pictures import PictureRequest, PictureStep
from orthoplex.models.flow_schedule import FlowSchedule
from orthoplex.models.inference_steps import StepRange
from orthoplex.models.schedules import Sampler

Guidance = Literal["embedded", "second prediction", "none"]
"""How a base follows ``guidance_scale``: the denoiser reads it, or a prediction of the negative prompt is compared."""


def even_sigmas(num_inference_steps: int) -> list[float]:
    """Return the shares of noise from 1 down to 1 / n, evenly spaced, as most pipelines of flow matching have them."""
    return np.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()


@final
@dataclass(frozen=True)
class Combination:
    """How the predictions of a prompt and of a negative one make one.

    Attributes:
        least: The ``guidance_scale`` up to which there is no second prediction.
        of: (prediction of the prompt, that of the negative prompt, ``guidance_scale``) to the one, ``(n, c, h, w)``.
    """

    least: float
    of: Callable[[Tensor, Tensor, float], Tensor]


FROM_NEGATIVE = Combination(1.0, lambda with_text, without, scale: without + scale * (with_text - without))
BEYOND = Combination(0.0, lambda with_text, without, scale: with_text + scale * (with_text - without))
"""``without + s (with_text − without)``, as most pipelines do; ``with_text`` in front instead, where 0 is none."""


class FlowFamily(LatentFamily):
    """Pipelines with a transformer as ``transformer``, and ``FlowMatchEulerDiscreteScheduler``.

    Times of ``predict`` are those of the scheduler, 1000 for pure noise. Pictures are those of diffusers' own
    pipelines, bit for bit.
    """

    selections: ClassVar[Mapping[str, Sequence[str]]]
    """Selection of ``SELECTIONS`` to patterns of the denoiser's layer names; without those that it has no layers of."""
    text_selections: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The same for the layers of the text encoders that concepts may change."""
    combination: ClassVar[Combination]
    """How a second prediction, of the negative prompt, and the prompt's make one."""
    sigmas: ClassVar[staticmethod[[int], list[float]]] = staticmethod(even_sigmas)
    """Number of denoising steps to the shares of noise at them, falling from 1, before they are shifted."""

    @property
    @abstractmethod
    def guidance(self) -> Guidance:
        """How it follows ``guidance_scale``."""

    @abstractmethod
    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """Return the scheduler's ``mu`` for latents of a size; only schedulers with dynamic shifting read it."""

    @property
    @abstractmethod
    def latent_dtype(self) -> torch.dtype:
        """The data type of latents between denoising steps."""

    @final
    @property
    def least_guidance(self) -> float:
        """As the combination of two predictions says."""
        return self.combination.least

    @final
    @property
    def own_latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)``, of the size of picture that the autoencoder names."""
        autoencoder = self.autoencoder
        side = autoencoder.sample_side // autoencoder.pixels_per_latent
        return autoencoder.channels, side, side

    @final
    def size_shift(self, height: int, width: int) -> float:
        """Return ``mu``, linear in the number of a picture's tokens (``calculate_shift`` of diffusers' pipelines).

        Args:
            height: Of latents.
            width: Of latents.
        """
        config, side = self.pipeline.scheduler.config, self.latent_multiple
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (high - low) / (most - least)
        return (height // side) * (width // side) * slope + low - slope * least

    @final
    @property
    def denoiser(self) -> nn.Module:
        """The transformer."""
        return self.pipeline.transformer

    @final
    def select(self, selection: str, *, text_encoder: bool) -> dict[str, nn.Linear]:
        """Return the linear layers whose names have a pattern of the selection."""
        denoisers, encoders = self.selections.get(selection, ()), self.text_selections.get(selection, ())
        return {
            name: linear
            for name, linear in self.every_layer().items()
            if (
                text_encoder and any(fnmatchcase(name, pattern) for pattern in encoders)
                if self.is_text_encoders(name)
                else any(fnmatchcase(name, pattern) for pattern in denoisers)
            )
            and not any(fnmatchcase(name, pattern) for pattern in self.unread)
        }

    @property
    def unread(self) -> Sequence[str]:
        """Patterns of the denoiser's layers whose outputs no prediction depends on: no selection has them."""
        return ()

    @final
    @property
    def schedule(self) -> FlowSchedule:
        """Straight lines from pictures to noise."""
        return FlowSchedule.of(self.pipeline.scheduler)

    @final
    def check_inference_steps(self, name: str, value: int) -> None:
        """Refuse more steps than the scheduler has times."""
        highest = self.allowed_inference_steps.highest
        if value > highest:
            raise ConfigurationError(
                f"{name} is {value}; allowed are 1 to {highest}, the timesteps of the base's scheduler"
            )

    @final
    @property
    def allowed_inference_steps(self) -> StepRange:
        """As many as the scheduler has times."""
        return StepRange(1, self.pipeline.scheduler.config.num_train_timesteps)

    @final
    @property
    def sampler(self) -> Sampler:
        """Class of the scheduler, and flow."""
        return Sampler(type(self.pipeline.scheduler).__name__, "flow")

    @final
    def denoise(self, request: PictureRequest) -> Generator[PictureStep, None, Tensor]:
        """Denoise as diffusers' own pipelines do, step by step; see ``LatentFamily.denoise``.

        Raises:
            ConfigurationError: For a negative prompt that no second prediction reads.
        """
        device = self.pipeline._execution_device  # where the pipeline's own call would work; offloading moves it
        prompts, negative = self._request_conditioning(request)
        latents = self.drawn_noise(request, device, self.latent_dtype)
        height, width = latents.shape[2:]
        scheduler = self._prepared_scheduler(height, width, request.num_inference_steps, device)
        for number, time in enumerate(scheduler.timesteps, start=1):
            prediction = self.predict(latents, time, prompts)
            if negative is not None:
                without = self.predict(latents, time, negative)
                prediction = self.combination.of(prediction, without, request.guidance_scale)
            latents = scheduler.step(prediction.to(latents.dtype), time, latents, return_dict=False)[0]
            yield PictureStep(number, len(scheduler.timesteps))
        return latents

    def _request_conditioning(self, request: PictureRequest) -> tuple[Conditioning, Conditioning | None]:
        """Return the prompts of all pictures, and the negative ones where there is a second prediction."""
        if self.guidance != "second prediction" and request.negative_prompt:
            raise ConfigurationError(
                f"negative_prompt is {request.negative_prompt!r}, which base '{self.identity.name}' does not read: "
                f"its guidance is {_IN_WORDS[self.guidance]}; allowed is none"
            )
        each = torch.arange(len(request.prompts)).repeat_interleave(request.pictures_per_prompt)
        prompts = self.read(request.prompts).take(each)
        if self.guidance == "embedded":
            scales = torch.full((len(prompts),), request.guidance_scale, device=prompts.features.device)
            return Conditioning(prompts.features, {**prompts.extras, "guidance": scales}, prompts.mask), None
        if self.guidance == "none" or request.guidance_scale <= self.least_guidance:
            return prompts, None
        return prompts, self.read([request.negative_prompt] * len(request.prompts)).take(each)

    def _prepared_scheduler(self, height: int, width: int, num_steps: int, device: torch.device) -> Any:  # noqa: ANN401
        """A copy of the scheduler with its times set; the pipeline's own stays as it is."""
        scheduler = deepcopy(self.pipeline.scheduler)
        if num_steps == 1:  # it would be first and last, and be stretched to both ends: not a number
            scheduler.register_to_config(shift_terminal=None)
        with without_warnings():
            scheduler.set_timesteps(
                sigmas=list(self.sigmas(num_steps)), device=device, mu=self.shift(height, width, num_steps)
            )
        scheduler.set_begin_index(0)
        return scheduler


class JointFamily(FlowFamily):
    """Those whose text and picture share all attention: no layer's keys and values read the text alone."""

    @final
    def cross_attention(self) -> Mapping[str, nn.Module]:
        """None."""
        return {}


_IN_WORDS: Mapping[Guidance, str] = {
    "embedded": "a number that the denoiser reads",
    "second prediction": "a second prediction",
    "none": "trained into it",
}
