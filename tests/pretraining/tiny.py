"""A training of a narrow denoiser on random latents: seconds long, and with all that the real one has."""

from dataclasses import dataclass
from unittest.mock import patch

import torch
from diffusers import UNet2DConditionModel

from pretraining.autoencoder import LATENTS
from pretraining.denoiser import Batch, Denoiser, build_unet


@dataclass
class TinySamples:
    """Random samples by their numbers, the same six again and again."""

    vocabulary: str = "fifty"
    latent_space: str = "a"
    fill: float | None = None

    def batch(self, start: int, stop: int) -> Batch:
        rows = torch.arange(start, stop) % 6
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(6, LATENTS, 16, 16, generator=generator)
        ids = torch.randint(0, 50, (6, 8), generator=generator)
        inside = torch.rand(6, 16, 16, generator=generator) < 0.4
        if self.fill is not None:
            latents.fill_(self.fill)
        return Batch(latents[rows], ids[rows], inside[rows])


def narrow_unet() -> UNet2DConditionModel:
    with torch.device("meta"):
        config = build_unet().config
    widths = {"block_out_channels": (16, 32, 32), "attention_head_dim": (1, 1, 1), "norm_num_groups": 8}
    return UNet2DConditionModel.from_config({**config, **widths})


def small_denoiser(words: int = 50) -> Denoiser:
    """Few words, and a narrow U-Net."""
    torch.manual_seed(0)
    with patch("pretraining.denoiser.build_unet", narrow_unet):
        return Denoiser(words)
