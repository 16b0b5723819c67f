"""Autoencoders of diffusers: pictures to the latents that denoisers see, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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

    @abstractmethod
    def encoding(self) -> Mapping[str, nn.Module]:
        """Return the parts that decide latents, by name."""

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

    @property
    def pixels_per_latent(self) -> int:
        """Two for each level but the first."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, shifted and scaled."""
        return (encoded(self.network, self._placed(pixels)).float() - self._shift) * self.network.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return what the network decodes."""
        return self.network.decode(latents / self.network.config.scaling_factor + self._shift).sample

    def encoding(self) -> Mapping[str, nn.Module]:
        """The encoder and its last convolution, which a small autoencoder has not."""
        parts = dict(self.network.named_children())
        return {name: parts[name] for name in ("encoder", "quant_conv") if parts.get(name) is not None}

    def scaling(self) -> list[Any]:
        """Factor and shift."""
        return [self.network.config.scaling_factor, self.network.config.get("shift_factor")]

    @property
    def _shift(self) -> float:
        return self.network.config.get("shift_factor") or 0.0
