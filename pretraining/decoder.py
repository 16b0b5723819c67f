"""Train the autoencoder's decoder on latents of the fixed PCA encoder (crops of 64 pixels = 8 × 8 latents)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pretraining.autoencoder import PatchPca, build, picture_tensor
from pretraining.checkpoint import begin_average, load_checkpoint, save_checkpoint, update_average
from pretraining.perceptual import Perceptual


@dataclass(frozen=True)
class DecoderConfig:
    """Knobs; `perceptual` weighs the distance in features against the pixel losses.

    Three quarters of the crops get noise on their latents, of a standard deviation drawn evenly from
    [0, latent_noise], so that errors of the denoiser are forgiven; the others get none.
    """

    samples: int = 90_000
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    latent_noise: float = 0.25
    perceptual: float = 1.0
    crop: int = 64
    seed: int = 0


@dataclass(frozen=True)
class DecoderProgress:
    """One log line; PSNR over the window's noisy-latent crops, in dB (peak 2)."""

    samples: int
    loss: float
    psnr: float
    samples_per_second: float


def reconstruction_loss(decoded: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 + MSE + 0.5 · L1 of the picture gradients; returns (loss, MSE)."""
    difference = decoded - target
    mse = difference.square().mean()
    gradient = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + mse + 0.5 * gradient, mse


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """(count, 1, 1, 1): a quarter of them 0, the others drawn evenly from [0, 1]."""
    return (torch.rand(count, 1, 1, 1, generator=generator) * 4 / 3 - 1 / 3).clamp_min(0)


def train_decoder(
    config: DecoderConfig, data: np.ndarray, pca: PatchPca, checkpoint: Path, device: str
) -> Iterator[DecoderProgress]:
    """Train from scratch or from `checkpoint` on (n, 128, 128, 3) uint8 pictures; yields a record every 50 steps."""
    torch.manual_seed(config.seed)
    decoder = build(pca).decoder.to(device)
    optimizer = torch.optim.AdamW(decoder.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    perceptual = Perceptual().to(device)
    average = begin_average(decoder)
    start = 0
    if checkpoint.exists():
        average, progress = load_checkpoint(checkpoint, decoder, optimizer, device)
        start = progress["step"]
    total, clock, losses, errors = config.samples // config.batch_size, time.perf_counter(), [], []
    for step in range(start, total):
        rng = np.random.default_rng([config.seed, step])
        corner = rng.integers(0, (128 - config.crop) // 8 + 1, (config.batch_size, 2)) * 8
        rows = rng.integers(0, len(data), config.batch_size)
        crops = np.stack(
            [data[r, y : y + config.crop, x : x + config.crop] for r, (y, x) in zip(rows, corner, strict=True)]
        )
        target = picture_tensor(crops).to(device)
        target = target.flip(-1) if step % 2 else target
        latents = pca.encode(target)
        generator = torch.Generator().manual_seed(step)
        level = config.latent_noise * noise_levels(len(latents), generator)
        noise = (level * torch.randn(latents.shape, generator=generator)).to(device)
        scale = min(1.0, (step + 1) / 200) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / total)))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * scale
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            decoded = decoder(latents + noise)
            distance = perceptual(decoded, target)
        loss, mse = reconstruction_loss(decoded.float(), target)
        loss = loss + config.perceptual * distance.float()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        update_average(average, decoder, min(0.995, (step + 1) / (step + 10)))
        losses.append(loss.item())
        errors.append(mse.item())
        if (step + 1) % 50 == 0:
            now = time.perf_counter()
            psnr = 10 * math.log10(4 / (sum(errors) / len(errors)))
            yield DecoderProgress(
                (step + 1) * config.batch_size, sum(losses) / len(losses), psnr, 50 * config.batch_size / (now - clock)
            )
            clock, losses, errors = now, [], []
        if (step + 1) % 500 == 0 or step + 1 == total:
            save_checkpoint(checkpoint, decoder, optimizer, average, {"step": step + 1})
