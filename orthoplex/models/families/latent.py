"""Bases that denoise the latents of an autoencoder by one of diffusers' schedulers."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.family import Family
from orthoplex.models.families.pictures import PictureRequest, Pictures, PictureStep
from orthoplex.models.identity import weights_hash
from orthoplex.models.inference_steps import (
    StepRange,
    allowed_steps,
    check_inference_steps,
    prepared_scheduler,
    step_options,
)
from orthoplex.models.quiet import quiet
from orthoplex.models.schedules import DiscreteSchedule, Sampler

with quiet():
    from diffusers.utils.torch_utils import randn_tensor


def encoded(autoencoder: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401  (an autoencoder of diffusers)
    """Return what an autoencoder makes of pictures: the mean of its posterior, or, of one without it, its latents."""
    output = autoencoder.encode(pixels)
    return output.latents if "latents" in output else output.latent_dist.mean


class LatentFamily(Family):
    """Pipelines with an autoencoder of diffusers as ``vae``, and with a discrete ``scheduler``.

    Pictures are those of diffusers' own pipelines of this form, bit for bit: classifier-free guidance, one step of the
    scheduler after the other.
    """

    @abstractmethod
    def with_guidance(self, conditioning: Conditioning, guidance_scale: float) -> Conditioning | None:
        """Return prompts that hold the guidance of a distilled denoiser; None where a second prediction guides it."""

    @final
    @classmethod
    def parts(cls) -> tuple[str, ...]:
        """The components with weights, a tokenizer for every text encoder, and the scheduler."""
        tokenizers = (name.replace("text_encoder", "tokenizer") for name in cls.text_encoders)
        return (*cls.weighed, *tokenizers, "scheduler")

    @final
    @property
    def resolution(self) -> int:
        """Width and height of its pictures, in pixels."""
        return self.latent_shape[1] * self.pixels_per_latent

    @final
    @property
    def pixels_per_latent(self) -> int:
        """Width and height, in pixels, of one position of the latents."""
        return self.pipeline.vae_scale_factor

    @final
    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        """Return the mean of the autoencoder's posterior, shifted and scaled, float32."""
        autoencoder = self.pipeline.vae
        means = encoded(autoencoder, pixels.to(autoencoder.device, autoencoder.dtype)).float()
        return (means - self._shift) * autoencoder.config.scaling_factor

    @final
    def pixels(self, latents: Tensor) -> Tensor:
        """Return what the autoencoder decodes."""
        autoencoder = self.pipeline.vae
        return autoencoder.decode(latents / autoencoder.config.scaling_factor + self._shift).sample

    @final
    @property
    def _shift(self) -> float:
        return self.pipeline.vae.config.get("shift_factor") or 0.0

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
    @torch.no_grad()
    def picture(self, request: PictureRequest) -> Iterator[PictureStep | Pictures]:
        """Denoise as diffusers' own pipelines do, step by step; see ``Family.picture``."""
        pipeline = self.pipeline
        device = pipeline._execution_device  # where the pipeline's own call would work; offloading moves it
        denoiser: Any = self.denoiser  # a network of diffusers, which knows the type that it computes in
        dtype = denoiser.dtype
        try:
            conditioning, guided = self._request_conditioning(request, dtype)
            scheduler = prepared_scheduler(pipeline.scheduler, request.num_inference_steps, device)
            generators = request.generators
            generators = generators if isinstance(generators, torch.Generator) else list(generators)
            shape = (len(request), *self.latent_shape)
            noise = randn_tensor(shape, generator=generators, device=device, dtype=dtype)
            options = step_options(scheduler, generators)
            latents = noise * scheduler.init_noise_sigma
            yield from self._denoised(request, scheduler, latents, conditioning, options, guided=guided)
        finally:
            pipeline.maybe_free_model_hooks()

    def _denoised(
        self,
        request: PictureRequest,
        scheduler: Any,  # noqa: ANN401  (diffusers' schedulers share no typed parent)
        latents: Tensor,
        conditioning: Conditioning,
        options: Mapping[str, Any],
        *,
        guided: bool,
    ) -> Iterator[PictureStep | Pictures]:
        """Denoise latents step by step, and decode them last."""
        num_steps = len(scheduler.timesteps)
        for number, time in enumerate(scheduler.timesteps, start=1):
            scaled = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
            prediction = self.predict(scaled, time, conditioning)
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = without + request.guidance_scale * (with_text - without)
            latents = scheduler.step(prediction, time, latents, **options, return_dict=False)[0]
            yield PictureStep(number, num_steps)
        pixels = None
        if request.decoded:
            decoded = (self.pixels(latents) * 0.5 + 0.5).clamp(0, 1)
            pixels = decoded.cpu().permute(0, 2, 3, 1).float().numpy()
        yield Pictures(latents, pixels)

    def _request_conditioning(self, request: PictureRequest, dtype: torch.dtype) -> tuple[Conditioning, bool]:
        """Return the prompts of all pictures; True if negative prompts are before them."""
        each = torch.arange(len(request.prompts)).repeat_interleave(request.pictures_per_prompt)
        prompts = self._read(request.prompts).to(dtype).take(each)
        distilled = self.with_guidance(prompts, request.guidance_scale)
        if distilled is not None or request.guidance_scale <= 1:
            return prompts if distilled is None else distilled, False
        negative = self._read([request.negative_prompt] * len(request.prompts)).to(dtype).take(each)
        return self._of_one_length([negative, prompts]), True

    def _read(self, prompts: Sequence[str | Conditioning]) -> Conditioning:
        """Return prompts, the shorter ones filled with empty chunks."""
        plain = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(plain) == len(prompts):
            return self.condition(plain)
        return self._of_one_length([self.condition([each]) if isinstance(each, str) else each for each in prompts])

    def _of_one_length(self, parts: Sequence[Conditioning]) -> Conditioning:
        """Return all prompts of some parts, the shorter ones filled with the empty prompt."""
        if len({part.features.shape[1] for part in parts}) > 1:
            parts = Conditioning.filled(parts, self.condition([""]))
        return Conditioning.cat(parts)

    @final
    def convolutional(self) -> tuple[nn.Module, ...]:
        """The denoiser and the autoencoder; only costs are measured on bases without the latter."""
        networks = (self.denoiser, self.pipeline.vae)
        return tuple(network for network in networks if network is not None)

    @final
    def inputs_hash(self) -> str:
        """Hash the autoencoder's encoder, the words, and the schedule; the decoder decides finished pictures only."""
        pipeline, autoencoder = self.pipeline, self.pipeline.vae
        parts = dict(autoencoder.named_children())  # a small autoencoder has no quant_conv
        encoding = {name: parts.get(name) for name in ("encoder", "quant_conv")}
        tables = [reader.table.detach().float().cpu().numpy().tobytes() for reader in self.readers]
        vocabularies = [reader.tokenizer.get_vocab() for reader in self.readers]
        values = {
            "encoder": weights_hash({name: module for name, module in encoding.items() if module is not None}),
            "tokens": hashlib.sha256(b"".join(tables)).hexdigest(),
            "vocabulary": vocabularies[0] if len(vocabularies) == 1 else vocabularies,
            "scheduler": {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")},
            "schedule": type(pipeline.scheduler).__name__,
            "scaling": [autoencoder.config.scaling_factor, autoencoder.config.get("shift_factor")],
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]

    @final
    def outputs_hash(self) -> str:
        """Hash the autoencoder."""
        return weights_hash({"vae": self.pipeline.vae})
