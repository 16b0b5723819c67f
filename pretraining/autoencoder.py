"""The autoencoder: a stock `AutoencoderKL` whose encoder *is* patch PCA, and a trained convolutional decoder.

A convolutional autoencoder of this size trained from scratch stays below patch PCA for a long time, so its encoder is
set, not trained: with 3 × 3 stride-2 convolutions a stock encoder holds space-to-depth exactly, and the final
GroupNorm and SiLU are made linear by carrying every component with both signs next to a large constant
(`silu(a) − silu(−a) = a`). Latents are therefore known before any training, and the denoiser can start at once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from pretraining.checkpoint import save

#: LATENTS is as many as the encoder's head holds: two for each group of its last norm
CHANNELS, LATENTS, GROUPS, PATCH = (16, 48, 96, 128), 16, 8, 8
CONSTANT = 64.0
#: a component is divided by this power of its standard deviation
BALANCE = 0.1


@dataclass(frozen=True)
class PatchPca:
    """mean (3, 8, 8) and components (k, 3, 8, 8) of picture patches in [−1, 1]; latents = components · (x − mean)."""

    mean: Tensor
    components: Tensor

    @staticmethod
    def load(work: Path) -> PatchPca:
        """The one that is kept under `work`.

        Raises:
            ValueError: When it has another number of components than today's networks take.
        """
        file = PatchPca.file(work)
        kept = PatchPca(**torch.load(file, weights_only=True))
        if len(kept.components) != LATENTS:
            raise ValueError(
                f"{file} holds {len(kept.components)} components; allowed is {LATENTS}: move it and the checkpoints "
                "beside it away"
            )
        return kept

    @staticmethod
    def file(work: Path) -> Path:
        """Where it is kept under `work`."""
        return work / "pca.pt"

    @property
    def key(self) -> str:
        """Stands for the latent space: networks that were trained in another one do not go on in it."""
        return hashlib.sha256(self.mean.numpy().tobytes() + self.components.numpy().tobytes()).hexdigest()[:16]

    def save(self, work: Path) -> None:
        """Keep it under `work`."""
        save(PatchPca.file(work), {"mean": self.mean, "components": self.components})

    @staticmethod
    def of(vae: AutoencoderKL) -> PatchPca:
        """What the encoder of an autoencoder from `build` was set to; of the mean, the part that the encoder sees."""
        last = vae.encoder.down_blocks[2].downsamplers[0].conv
        count = vae.config["latent_channels"]
        weight, bias = last.weight.detach().float(), last.bias.detach().float()[:count]
        components = torch.zeros(count, 3, PATCH, PATCH)
        for inner, i, j, colour, row, column in _patch_pixels():
            components[:, colour, row, column] = weight[:count, inner, i, j]
        mean = -(torch.linalg.pinv(components.flatten(1)) @ bias)
        return PatchPca(mean.reshape(3, PATCH, PATCH), components)

    def encode(self, pictures: Tensor) -> Tensor:
        """(n, 3, h, w) in [−1, 1] -> (n, k, h/8, w/8)."""
        bias = -(self.components * self.mean).sum((1, 2, 3))
        return nn.functional.conv2d(pictures, self.components, bias, stride=PATCH)


def picture_tensor(pictures: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in [−1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def images(x: Tensor) -> list[Image.Image]:
    """Pictures of (n, 3, h, w) in [−1, 1]; what is beyond is cut off."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(picture) for picture in pixels.numpy()]


def psnr_db(shown: Tensor, x: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures (n, 3, h, w) against x in [−1, 1]; at most 100 for each."""
    error = (shown.clamp(-1, 1) - x).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error.clamp_min(4e-10))).mean())


def patches_of(x: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) -> their patches, row by row of every picture, (n · h/8 · w/8, 192)."""
    return nn.functional.unfold(x, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH)


def _directions(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Standard deviations (count,) along the directions (count, 192) of largest variance, both float64."""
    values, vectors = torch.linalg.eigh(torch.cov(centred.T.double()))
    order = values.argsort(descending=True)[:count]
    return values[order].clamp_min(1e-12).sqrt(), vectors[:, order].T


def fit_pca(pictures: np.ndarray, balance: float = BALANCE, count: int = LATENTS) -> PatchPca:
    """PCA of 8 × 8 patches of (n, h, w, 3) uint8 pictures; component k is divided by σ_k^balance, all by one scalar.

    `count` of the 192 components are kept.
    """
    patches = patches_of(picture_tensor(pictures))
    mean = patches.mean(0)
    sigma, directions = _directions(patches - mean, count)
    total = ((sigma ** (1 - balance)) ** 2).mean().sqrt()
    scaled = directions / sigma[:, None] ** balance / total
    return PatchPca(mean.reshape(3, PATCH, PATCH), scaled.reshape(count, 3, PATCH, PATCH).float())


def extended(pca: PatchPca, pictures: np.ndarray) -> PatchPca:
    """The same components and as many more as networks take: those of what (n, h, w, 3) uint8 pictures have left.

    Latents of the components that there were, which are orthogonal and at most LATENTS, stay as they were. The others
    are divided by σ^BALANCE, as those are.
    """
    count, patches = len(pca.components), patches_of(picture_tensor(pictures))
    before = nn.functional.normalize(pca.components.flatten(1), dim=1)
    centred = patches - pca.mean.flatten()
    left = centred - centred @ before.T @ before
    sigma, directions = _directions(left, LATENTS - count)
    scale = pca.components[-1].norm() * (centred @ before[-1]).std() ** BALANCE
    more = (directions * (scale / sigma**BALANCE)[:, None]).float()
    mean = pca.mean + left.mean(0).reshape(pca.mean.shape)
    return PatchPca(mean, torch.cat([pca.components, more.reshape(-1, *pca.mean.shape)]))


def build(pca: PatchPca) -> AutoencoderKL:
    """A stock autoencoder whose encoder computes `pca.encode` and whose decoder is freshly initialised.

    Raises:
        ValueError: When there are more components than the encoder's head holds.
    """
    if len(pca.components) > LATENTS:
        raise ValueError(f"the latent space has {len(pca.components)} components; allowed are at most {LATENTS}")
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=len(pca.components),
        norm_num_groups=GROUPS,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    _set_encoder(vae, pca)
    return vae


def _patch_pixels() -> Iterator[tuple[int, int, int, int, int, int]]:
    """Channel and kernel place of the last down-sampling, and the colour, row and column of a patch that it reads."""
    for i, j, inner in itertools.product(range(2), range(2), range(48)):
        second, rest = divmod(inner, 12)
        first, colour = divmod(rest, 3)
        row = i * 4 + (second // 2) * 2 + first // 2
        column = j * 4 + (second % 2) * 2 + first % 2
        yield inner, i, j, colour, row, column


@torch.no_grad()
def _set_encoder(vae: AutoencoderKL, pca: PatchPca) -> None:
    encoder, count = vae.encoder, len(pca.components)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
        if name.endswith("conv_shortcut"):
            for channel in range(min(module.weight.shape[:2])):  # pass channels through
                module.weight[channel, channel, 0, 0] = 1
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1
    for block, width in ((0, 3), (1, 12)):  # space-to-depth: channel (c, i, j) -> (i · 2 + j) · width + c
        conv = encoder.down_blocks[block].downsamplers[0].conv
        for c in range(width):
            for i in range(2):
                for j in range(2):
                    conv.weight[(i * 2 + j) * width + c, c, i, j] = 1
    last = encoder.down_blocks[2].downsamplers[0].conv
    for inner, i, j, colour, row, column in _patch_pixels():
        last.weight[:count, inner, i, j] = pca.components[:, colour, row, column]
    last.bias[:count] = -(pca.components * pca.mean).sum((1, 2, 3))
    _make_head_linear(encoder, count)


def _make_head_linear(encoder: nn.Module, count: int) -> None:
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut
    shortcut.weight.zero_()
    per_group = CHANNELS[3] // GROUPS
    encoder.conv_norm_out.weight.fill_(CONSTANT * (2 / per_group) ** 0.5)
    encoder.conv_norm_out.bias.zero_()
    for component in range(count):
        start = (component // 2) * per_group + (component % 2) * 2
        constant = (component // 2) * per_group + 4
        shortcut.weight[start, component, 0, 0], shortcut.weight[start + 1, component, 0, 0] = 1, -1
        shortcut.bias[constant], shortcut.bias[constant + 1] = CONSTANT, -CONSTANT
        encoder.conv_out.weight[component, start, 1, 1], encoder.conv_out.weight[component, start + 1, 1, 1] = 1, -1
    encoder.conv_out.bias[count:] = -30.0
