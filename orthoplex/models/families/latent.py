"""Bases that denoise the latents of an autoencoder, whatever their schedule."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from orthoplex.errors import ConfigurationError
from orthoplex.models.families.autoencoders import Autoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.family import Family
from orthoplex.models.families.pictures import PictureRequest, Pictures, PictureStep
from orthoplex.models.identity import weights_hash
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.utils.torch_utils import randn_tensor


class LatentFamily(Family):
    """Pipelines with an autoencoder of diffusers as ``vae``, and with a ``scheduler``.

    Pictures are those of diffusers' own pipelines of this form, bit for bit.
    """

    _resolution: int | None = None

    @property
    @abstractmethod
    def autoencoder(self) -> Autoencoder:
        """The autoencoder, with the scale of the latents."""

    @property
    @abstractmethod
    def own_latent_shape(self) -> tuple[int, int, int]:
        """Shape of the latents of one picture at the resolution that the base was made for, ``(c, h, w)``."""

    @property
    @abstractmethod
    def latent_multiple(self) -> int:
        """Numbers of which height and width of latents are multiples, as of the side of a patch."""

    @abstractmethod
    def denoise(self, request: PictureRequest) -> Generator[PictureStep, None, Tensor]:
        """Make latents of prompts: yield every denoising step as it is done, and return the latents ``(n, c, h, w)``.

        Called without gradients.
        """

    @final
    @classmethod
    def parts(cls) -> tuple[str, ...]:
        """The components with weights, the tokenizers, and the scheduler."""
        return (*cls.weighed, *cls.tokenizers, "scheduler")

    @final
    @property
    def resolution(self) -> int:
        """Width and height of its pictures, in pixels."""
        return self.latent_shape[1] * self.pixels_per_latent

    @final
    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)``."""
        channels, height, width = self.own_latent_shape
        if self._resolution is None:
            return channels, height, width
        side = self._resolution // self.pixels_per_latent
        return channels, side, side

    @final
    def use_resolution(self, pixels: int | None) -> int | None:
        """Let pictures be of another resolution; see ``Family.use_resolution``."""
        self.check_side("resolution", pixels)
        before, self._resolution = self._resolution, pixels
        return before

    @final
    def check_side(self, name: str, pixels: int | None) -> None:
        """Refuse a width or height of pictures that no latents have.

        Args:
            name: What the option is called.
            pixels: The side; None is the base's own.

        Raises:
            ConfigurationError: Names the option, its value, and what is allowed.
        """
        step = side_multiple(self)
        if pixels is not None and (pixels < step or pixels % step):
            raise ConfigurationError(
                f"{name} is {pixels}; allowed are multiples of {step}, the pixels of base '{self.identity.name}' that "
                "its smallest part of a picture has"
            )

    @final
    @property
    def pixels_per_latent(self) -> int:
        """Width and height, in pixels, of one position of the latents."""
        return self.autoencoder.pixels_per_latent

    @final
    def latents(self, pixels: Tensor) -> Tensor:
        """Return the mean of the autoencoder's posterior, scaled, float32."""
        return self.autoencoder.encode(pixels)

    @final
    def pixels(self, latents: Tensor) -> Tensor:
        """Return what the autoencoder decodes."""
        return self.autoencoder.decode(latents)

    @final
    def drawn_noise(self, request: PictureRequest, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Draw the noise that a request begins with, ``(n, c, h, w)``, as diffusers' pipelines do."""
        shape = (len(request), *self.latent_shape)
        return randn_tensor(shape, generator=request.noise_source, device=device, dtype=dtype)

    @final
    @torch.no_grad()
    def picture(self, request: PictureRequest) -> Iterator[PictureStep | Pictures]:
        """Denoise as diffusers' own pipelines do, step by step; see ``Family.picture``."""
        try:
            latents = yield from self.denoise(request)
            pixels = None
            if request.decoded:
                decoded = (self.pixels(latents) * 0.5 + 0.5).clamp(0, 1)
                pixels = decoded.cpu().permute(0, 2, 3, 1).float().numpy()
            yield Pictures(latents, pixels)
        finally:
            self.leave()

    def leave(self) -> None:
        """Let the networks go that a pipeline has brought to a device for a picture."""
        self.pipeline.maybe_free_model_hooks()

    @final
    def read(self, prompts: Sequence[str | Conditioning]) -> Conditioning:
        """Return prompts as the denoiser takes them, the shorter ones filled up."""
        plain = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(plain) == len(prompts):
            return self.condition(plain)
        return self.of_one_length([self.condition([each]) if isinstance(each, str) else each for each in prompts])

    @final
    def of_one_length(self, parts: Sequence[Conditioning]) -> Conditioning:
        """Return all prompts of some parts, the shorter ones filled up; without masks, with the empty prompt."""
        if len({part.features.shape[1] for part in parts}) > 1 and parts[0].mask is None:
            parts = Conditioning.filled(parts, self.condition([""]))
        return Conditioning.cat(parts)

    @final
    def convolutional(self) -> tuple[nn.Module, ...]:
        """The denoiser and the autoencoder; only costs are measured on bases without the latter."""
        networks = (self.denoiser, self.pipeline.vae)
        return tuple(network for network in networks if network is not None)

    @final
    def inputs_hash(self) -> str:
        """Hash the autoencoder's encoder, the words, text encoders that concepts leave alone, settings and schedule.

        The decoder decides finished pictures only.
        """
        pipeline, autoencoder = self.pipeline, self.autoencoder
        unchanged = {
            reader.component: reader.network for reader in self.readers if reader.component not in self.changed
        }
        settings = {
            name: value
            for name, value in pipeline.config.items()
            if not name.startswith("_") and name not in (*pipeline.components, "requires_safety_checker")
        }
        tables = [reader.table.detach().float().cpu().numpy().tobytes() for reader in self.readers]
        vocabularies = [reader.tokenizer.get_vocab() for reader in self.readers]
        values = {
            "encoder": weights_hash(autoencoder.encoding()),
            "tokens": hashlib.sha256(b"".join(tables)).hexdigest(),
            "vocabulary": vocabularies[0] if len(vocabularies) == 1 else vocabularies,
            "scheduler": {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")},
            "schedule": type(pipeline.scheduler).__name__,
            "scaling": autoencoder.scaling(),
        }
        values |= {"readers": weights_hash(unchanged)} if unchanged else {}
        values |= {"settings": settings} if settings else {}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]

    @final
    def outputs_hash(self) -> str:
        """Hash the autoencoder."""
        return weights_hash({"vae": self.pipeline.vae})


def side_multiple(family: Family) -> int:
    """Return the number of pixels of which height and width of a base's pictures are multiples."""
    return family.pixels_per_latent * (family.latent_multiple if isinstance(family, LatentFamily) else 1)
