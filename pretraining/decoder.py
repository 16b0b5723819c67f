"""Train the autoencoder's decoder on latents of the fixed PCA encoder (crops of 64 pixels = 8 × 8 latents)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from orthoplex.models import has_fast_bf16
from pretraining.autoencoder import PatchPca, build, picture_tensor
from pretraining.checkpoint import begin_average, kept_value, load_checkpoint, save_checkpoint, update_average
from pretraining.perceptual import Perceptual


@dataclass(frozen=True)
class DecoderConfig:
    """Knobs; `perceptual` weighs the distance in features against the pixel losses.

    Three quarters of the crops get noise on their latents, of a standard deviation drawn evenly from
    [0, latent_noise], so that errors of the denoiser are forgiven; the others get none. Where denoised latents are
    given, they take `denoised_share` of every batch, as they are.
    """

    samples: int = 90_000
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    latent_noise: float = 0.25
    perceptual: float = 1.0
    denoised_share: float = 0.5
    crop: int = 64
    seed: int = 0


@dataclass(frozen=True, eq=False)
class DenoisedLatents:
    """What the denoiser makes of noised real latents, beside the pictures that they belong to.

    Attributes:
        latents: `(m, LATENTS, 16, 16)`.
        rows: `(m,)`: the picture of each.
    """

    latents: Tensor
    rows: Tensor


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


def crop_batch(
    config: DecoderConfig, data: np.ndarray, pca: PatchPca, denoised: DenoisedLatents | None, step: int
) -> tuple[Tensor, Tensor]:
    """Latents (n, LATENTS, crop / 8, crop / 8) and the pictures (n, 3, crop, crop) to decode to, by step."""
    rng = np.random.default_rng([config.seed, step])
    corners = rng.integers(0, (data.shape[1] - config.crop) // 8 + 1, (config.batch_size, 2))
    rows = rng.integers(0, len(data), config.batch_size)
    picks = np.zeros(0, dtype=np.int64)
    if denoised is not None:
        picks = rng.integers(0, len(denoised.rows), round(config.denoised_share * config.batch_size))
        rows[: len(picks)] = denoised.rows[picks].numpy()
    own = len(picks)
    size, cells = config.crop, config.crop // 8
    crops = [data[r, 8 * y : 8 * y + size, 8 * x : 8 * x + size] for r, (y, x) in zip(rows, corners, strict=True)]
    target = picture_tensor(np.stack(crops))
    if step % 2:
        target[own:] = target[own:].flip(-1)
    generator = torch.Generator().manual_seed(step)
    clean = pca.encode(target[own:])
    level = config.latent_noise * noise_levels(len(clean), generator)
    noisy = clean + level * torch.randn(clean.shape, generator=generator)
    if denoised is None:
        return noisy, target
    pairs = zip(picks, corners, strict=False)
    made = [denoised.latents[p, :, y : y + cells, x : x + cells] for p, (y, x) in pairs]
    return torch.cat([torch.stack(made).float(), noisy]), target


def train_decoder(
    config: DecoderConfig,
    data: np.ndarray,
    pca: PatchPca,
    checkpoint: Path,
    device: str,
    *,
    denoised: DenoisedLatents | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> Iterator[DecoderProgress]:
    """Train on (n, 128, 128, 3) uint8 pictures; yields a record every 50 steps.

    It goes on from `checkpoint` where there is one, else begins with the weights `initial`, else from scratch. With 0
    samples `checkpoint` holds the weights that it begins with.
    """
    kind, layout = torch.device(device), torch.channels_last  # an eighth faster on a CPU
    torch.manual_seed(config.seed)
    decoder = build(pca).decoder.to(device, memory_format=layout)
    if initial is not None:
        decoder.load_state_dict(initial)
    optimizer = torch.optim.AdamW(decoder.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    if not config.samples:
        save_checkpoint(checkpoint, decoder, optimizer, begin_average(decoder), {"step": 0, "latent_space": pca.key})
        return
    perceptual = Perceptual().to(device, memory_format=layout)
    average = begin_average(decoder)
    start = 0
    if checkpoint.exists():
        if (kept := kept_value(checkpoint, "latent_space")) != pca.key:
            raise ValueError(f"{checkpoint} decodes the latent space {kept}; allowed is {pca.key}: move it away")
        average, progress = load_checkpoint(checkpoint, decoder, optimizer, device)
        start = progress["step"]
    total, clock, losses, errors = config.samples // config.batch_size, time.perf_counter(), [], []
    for step in range(start, total):
        batch = crop_batch(config, data, pca, denoised, step)
        latents, target = (part.to(device, memory_format=layout) for part in batch)
        scale = min(1.0, (step + 1) / 200) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / total)))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * scale
        with torch.autocast(kind.type, torch.bfloat16, enabled=has_fast_bf16(kind)):
            decoded = decoder(latents)
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
            save_checkpoint(checkpoint, decoder, optimizer, average, {"step": step + 1, "latent_space": pca.key})
