"""Latents as the denoiser makes them, beside the pictures they belong to: what the decoder will really be given.

A real latent is noised to one of the last steps of sampling and denoised again under its own caption, three times in
four with guidance. Its layout stays and its detail is the denoiser's own, with the denoiser's own errors; the decoder
that is trained on such pairs learns to mend them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from orthoplex.models import has_fast_bf16
from pretraining.autoencoder import picture_tensor
from pretraining.captions import caption
from pretraining.compose import Factors
from pretraining.decoder import DecoderConfig, DenoisedLatents

#: how the decoder is trained on them
REFINING = DecoderConfig(samples=64_000, learning_rate=1e-3)


@dataclass(frozen=True)
class RefineConfig:
    """Knobs: how many pictures, and how many of the `steps` of sampling are done again (evenly drawn)."""

    pictures: int = 3008
    batch_size: int = 32
    steps: int = 20
    fewest: int = 2
    most: int = 10
    guidance_scale: float = 4.0
    guided_share: float = 0.75
    seed: int = 0


@torch.no_grad()
def denoised_latents(
    config: RefineConfig,
    pipeline: StableDiffusionPipeline,
    data: np.ndarray,
    factors: Sequence[Factors],
) -> Iterator[DenoisedLatents]:
    """Yield the latents of one batch of pictures after the other; half precision.

    `data` are (n, 128, 128, 3) uint8 pictures of which `config.pictures` are drawn, `factors` what each holds.
    """
    rng, words = np.random.default_rng(config.seed), random.Random(config.seed + 1)
    rows = rng.permutation(len(data))[: config.pictures]
    empty = _context(pipeline, [""])
    for start in range(0, len(rows), config.batch_size):
        batch = rows[start : start + config.batch_size]
        clean = pipeline.vae.encode(picture_tensor(data[batch])).latent_dist.mean
        context = _context(pipeline, [caption(factors[row], words) for row in batch])
        pipeline.scheduler.set_timesteps(config.steps)
        timesteps = pipeline.scheduler.timesteps[-int(rng.integers(config.fewest, config.most + 1)) :]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(start))
        latents = pipeline.scheduler.add_noise(clean, noise, timesteps[:1].expand(len(clean)))
        guidance = config.guidance_scale if rng.random() < config.guided_share else 1.0
        made = denoise(pipeline, latents, timesteps, (empty, context), guidance)
        yield DenoisedLatents(made.half(), torch.from_numpy(batch.copy()))


def denoise(
    pipeline: StableDiffusionPipeline,
    latents: Tensor,
    timesteps: Tensor,
    contexts: tuple[Tensor, Tensor],
    guidance: float,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Latents (n, c, h, w) after some steps of a DDIM sampler, under autocast where bf16 is fast.

    `contexts` are those of the empty prompt (1, tokens, width), unused at guidance 1, and of the prompts (n, tokens,
    width); `eta` and `generator` are the sampler's.
    """
    empty, context = contexts
    guided = guidance != 1
    both = torch.cat([empty.expand(len(latents), -1, -1), context]) if guided else context
    for timestep in timesteps:
        inputs = torch.cat([latents, latents]) if guided else latents
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=has_fast_bf16(latents.device)):
            predicted = pipeline.unet(inputs, timestep, both).sample.float()
        if guided:
            free, told = predicted.chunk(2)
            predicted = free + guidance * (told - free)
        latents = pipeline.scheduler.step(predicted, timestep, latents, eta=eta, generator=generator).prev_sample
    return latents


def _context(pipeline: StableDiffusionPipeline, texts: list[str]) -> Tensor:
    ids = pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipeline.text_encoder(ids)[0]
