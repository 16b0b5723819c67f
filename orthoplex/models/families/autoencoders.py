"""Autoencoders of diffusers: pictures to the latents that denoisers see, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn


class Autoencoder(ABC):
    """An autoencoder with the scale of its latents; pictures are ``(n, 3, height, width)``, about in [-1, 1]."""

    def __init__(self, network: Any) -> None:  # noqa: ANN401  (networks of diffusers share no typed parent)
        """Take the network."""
        self.network = network

    network: Any

    @property
    @abstractmethod
    def pixels_per_latent(self) -> int:
        """Width and height, in pixels, of one position of the latents."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean latents of pictures, as the denoiser sees them, ``(n, c, h, w)`` float32."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return the pictures of latents, in the data type of the network."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Numbers of a position of the latents."""

    @property
    @abstractmethod
    def sample_side(self) -> int:
        """Width and height, in pixels, of the pictures that the configuration names."""

    @final
    def encoding(self) -> Mapping[str, nn.Module]:
        """Return the parts that decide latents, by name: the encoder and its last convolution, which some have not."""
        parts = dict(self.network.named_children())
        return {name: parts[name] for name in ("encoder", "quant_conv") if parts.get(name) is not None}

    @abstractmethod
    def scaling(self) -> list[Any]:
        """Return the numbers besides weights that decide latents, as JSON values."""

    @final
    def _placed(self, values: Tensor) -> Tensor:
        return values.to(self.network.device, self.network.dtype)


def encoded(network: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401  (an autoencoder of diffusers)
    """Return what an autoencoder makes of pictures: the mean of its posterior, or, of one without it, its latents."""
    output = network.encode(pixels)
    return output.latents if "latents" in output else output.latent_dist.mean


@final
class KLAutoencoder(Autoencoder):
    """``AutoencoderKL`` and its relatives: one factor and one shift for all latents."""

    def __init__(self, network: Any, *, upcasts: bool = False) -> None:  # noqa: ANN401
        """Take the network.

        Args:
            network: Of diffusers.
            upcasts: True lets float16 weights work in float32 where the configuration says ``force_upcast``: those of
                Stable Diffusion XL overflow.
        """
        super().__init__(network)
        self._upcasts = upcasts and bool(network.config.get("force_upcast"))

    @property
    def pixels_per_latent(self) -> int:
        """Two for each level but the first."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Those of the configuration."""
        return self.network.config.latent_channels

    @property
    def sample_side(self) -> int:
        """The configuration's ``sample_size``."""
        return self.network.config.sample_size

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, shifted and scaled."""
        with self._wide_enough():
            means = encoded(self.network, self._placed(pixels)).float()
        return (means - self._shift) * self.network.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return what the network decodes."""
        with self._wide_enough():
            latents = latents.to(self.network.dtype)
            return self.network.decode(latents / self.network.config.scaling_factor + self._shift).sample

    @contextmanager
    def _wide_enough(self) -> Iterator[None]:
        """Inside, a network that overflows in float16 is one of float32, exactly."""
        if not self._upcasts or self.network.dtype != torch.float16:
            yield
            return
        try:
            nn.Module.to(self.network, torch.float32)  # diffusers' own method warns
            yield
        finally:
            nn.Module.to(self.network, torch.float16)

    def scaling(self) -> list[Any]:
        """Factor and shift."""
        return [self.network.config.scaling_factor, self.network.config.get("shift_factor")]

    @property
    def _shift(self) -> float:
        return self.network.config.get("shift_factor") or 0.0


@final
class NormalizedAutoencoder(Autoencoder):
    """FLUX.2's: squares of four positions are one, and each of their channels is normalized by stored statistics."""

    @property
    def pixels_per_latent(self) -> int:
        """Two for each level but the first, twice as much for squares."""
        return 2 ** len(self.network.config.block_out_channels)

    @property
    def channels(self) -> int:
        """Those of four positions."""
        return 4 * self.network.config.latent_channels

    @property
    def sample_side(self) -> int:
        """The configuration's ``sample_size``."""
        return self.network.config.sample_size

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, in squares, normalized."""
        means = encoded(self.network, self._placed(pixels))
        count, channels, height, width = means.shape
        squares = means.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        squares = squares.reshape(count, 4 * channels, height // 2, width // 2)
        mean, deviation = self._statistics(squares)
        return ((squares - mean) / deviation).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Return what the network decodes."""
        latents = latents.to(self.network.dtype)
        mean, deviation = self._statistics(latents)
        squares = latents * deviation + mean
        count, channels, height, width = squares.shape
        means = squares.reshape(count, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return self.network.decode(means.reshape(count, channels // 4, 2 * height, 2 * width)).sample

    def scaling(self) -> list[Any]:
        """The statistics."""
        norm = self.network.bn
        return [norm.running_mean.tolist(), norm.running_var.tolist(), self.network.config.batch_norm_eps]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.network.bn
        mean = norm.running_mean.view(1, -1, 1, 1).to(like)
        return mean, torch.sqrt(norm.running_var.view(1, -1, 1, 1) + self.network.config.batch_norm_eps).to(like)


@final
class FrameAutoencoder(Autoencoder):
    """Qwen-Image's, which is of videos: pictures are their first frames; each channel has a mean and a deviation."""

    @property
    def pixels_per_latent(self) -> int:
        """Two for each level but the first."""
        return 2 ** len(self.network.config.temperal_downsample)

    @property
    def channels(self) -> int:
        """Those of the configuration."""
        return self.network.config.z_dim

    @property
    def sample_side(self) -> int:
        """Width and height of pictures, in pixels: the configuration's ``sample_size``, or 1024, as it has none."""
        return self.network.config.get("sample_size") or 1024

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, normalized."""
        means = encoded(self.network, self._placed(pixels).unsqueeze(2)).squeeze(2).float()
        config = self.network.config
        return (means - _channels(config.latents_mean, means)) / _channels(config.latents_std, means)

    def decode(self, latents: Tensor) -> Tensor:
        """Return what the network decodes; the order of operations is that of diffusers' pipelines."""
        placed, config = self._placed(latents), self.network.config
        placed = placed / (1.0 / _channels(config.latents_std, placed)) + _channels(config.latents_mean, placed)
        return self.network.decode(placed.unsqueeze(2)).sample.squeeze(2)

    def scaling(self) -> list[Any]:
        """Mean and deviation of each channel."""
        return [list(self.network.config.latents_mean), list(self.network.config.latents_std)]


def _channels(numbers: Sequence[float], like: Tensor) -> Tensor:
    """Numbers of channels as ``(1, c, 1, 1)``."""
    return torch.tensor(numbers).view(1, -1, 1, 1).to(like)
