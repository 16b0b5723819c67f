"""Bases with a discrete schedule: their denoisers predict ε, v or x_0 of numbered timesteps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import ClassVar, final

import torch
from torch import Tensor

from orthoplex.models.families.autoencoders import KLAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.latent import LatentFamily
from orthoplex.models.families.pictures import PictureRequest, PictureStep
from orthoplex.models.inference_steps import (
    StepRange,
    allowed_steps,
    check_inference_steps,
    prepared_scheduler,
    step_options,
)
from orthoplex.models.schedules import DiscreteSchedule, Sampler
from orthoplex.models.weights.quantised import compute_dtype


class DiscreteFamily(LatentFamily):
    """Pipelines with an ``AutoencoderKL`` or a relative of it, and a scheduler of numbered timesteps.

    Pictures are those of diffusers' own pipelines of this form, bit for bit: classifier-free guidance, one step of the
    scheduler after the other.
    """

    upcasts: ClassVar[bool] = False
    """True if a float16 autoencoder works in float32 where its configuration asks for it (``force_upcast``)."""

    @abstractmethod
    def with_guidance(self, conditioning: Conditioning, guidance_scale: float) -> Conditioning | None:
        """Return prompts that hold the guidance of a distilled denoiser; None where a second prediction guides it."""

    @final
    @property
    def autoencoder(self) -> KLAutoencoder:
        """The autoencoder."""
        return KLAutoencoder(self.pipeline.vae, upcasts=self.upcasts)

    @final
    @property
    def least_guidance(self) -> float:
        """One."""
        return 1.0

    @final
    @property
    def latent_multiple(self) -> int:
        """One: U-Nets take latents of any size."""
        return 1

    @final
    @property
    def schedule(self) -> DiscreteSchedule:
        """The scheduler's ᾱ and what the denoiser predicts."""
        return DiscreteSchedule.of(self.pipeline.scheduler)

    @final
    def check_inference_steps(self, name: str, value: int) -> None:
        """Refuse a number of steps that the scheduler cannot do."""
        check_inference_steps(self.pipeline.scheduler, name, value)

    @final
    @property
    def allowed_inference_steps(self) -> StepRange:
        """Those that the scheduler can do."""
        return allowed_steps(self.pipeline.scheduler)

    @final
    @property
    def sampler(self) -> Sampler:
        """Class and prediction type of the scheduler."""
        scheduler = self.pipeline.scheduler
        return Sampler(type(scheduler).__name__, scheduler.config.prediction_type)

    @final
    def denoise(self, request: PictureRequest) -> Generator[PictureStep, None, Tensor]:
        """Denoise as diffusers' own pipelines do, step by step; see ``LatentFamily.denoise``."""
        device = self.pipeline._execution_device  # where the pipeline's own call would work; offloading moves it
        dtype = compute_dtype(self.denoiser)
        conditioning, guided = self._request_conditioning(request, dtype)
        scheduler = prepared_scheduler(self.pipeline.scheduler, request.num_inference_steps, device)
        options = step_options(scheduler, request.noise_source)
        latents = self.drawn_noise(request, device, dtype) * scheduler.init_noise_sigma
        num_steps = len(scheduler.timesteps)
        for number, time in enumerate(scheduler.timesteps, start=1):
            scaled = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
            prediction = self.predict(scaled, time, conditioning)
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = without + request.guidance_scale * (with_text - without)
            latents = scheduler.step(prediction, time, latents, **options, return_dict=False)[0]
            yield PictureStep(number, num_steps)
        return latents

    def _request_conditioning(self, request: PictureRequest, dtype: torch.dtype) -> tuple[Conditioning, bool]:
        """Return the prompts of all pictures; True if negative prompts are before them."""
        each = torch.arange(len(request.prompts)).repeat_interleave(request.pictures_per_prompt)
        read = self.read(request.prompts).to(dtype)
        prompts = read.take(each)
        distilled = self.with_guidance(prompts, request.guidance_scale)
        if distilled is not None or request.guidance_scale <= self.least_guidance:
            return prompts if distilled is None else distilled, False
        negative = self.unconditional(request.negative_prompt, read).to(dtype).take(each)
        return self.of_one_length([negative, prompts]), True

    def unconditional(self, negative: str | Conditioning, prompts: Conditioning) -> Conditioning:
        """Return what guidance leads away from, for each of n prompts.

        Args:
            negative: The negative prompt.
            prompts: The n prompts.
        """
        return self.read([negative] * len(prompts))
