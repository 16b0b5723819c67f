"""Stable Diffusion 1 and 2: a U-Net with cross-attention on the features of one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.latent_check import check_autoencoder, check_reader, check_scheduler
from orthoplex.models.families.layouts.stable_diffusion import LAYOUT
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.families.stable_diffusion_check import check_unet, try_networks
from orthoplex.models.families.stable_diffusion_folder import version_of
from orthoplex.models.families.unet import UNetFamily
from orthoplex.models.problems import all_done
from orthoplex.models.prompts.prompt import Prompt
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.weighted import chunks_at_once, weighted_features
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTextModel

_NETWORKS = {
    "vae": (AutoencoderKL, AutoencoderTiny, AsymmetricAutoencoderKL),
    "text_encoder": (CLIPTextModel,),
    "unet": (UNet2DConditionModel,),
}
"""Component to the classes that it may have."""


@final
class StableDiffusion(UNetFamily):
    """Stable Diffusion 1 and 2, and every base of their classes, whatever its size."""

    changed = ("unet", "text_encoder")
    weighed = tuple(_NETWORKS)
    text_encoders = ("text_encoder",)
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer",)
    layout = LAYOUT

    @classmethod
    def load(
        cls,
        folder: Path,
        index: Mapping[str, Any],
        files: Mapping[str, WeightFiles | None],
        dtype: torch.dtype,
    ) -> StableDiffusionPipeline:
        """Load a pipeline without its safety checker; see ``Family.load``."""
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        create: Any = StableDiffusionPipeline  # whose annotations lack None
        pipeline = create(
            **parts,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return without_bars(pipeline, folder)

    @classmethod
    def version(cls, pipeline: StableDiffusionPipeline) -> str:
        """Return ``sd1``, ``sd2`` or ``sd2-v``."""
        return version_of(pipeline.unet.config.cross_attention_dim, pipeline.scheduler.config.prediction_type)

    @classmethod
    def check(cls, pipeline: StableDiffusionPipeline) -> None:
        """Refuse parts that do not belong together, or that nothing here works with; see ``latent_check``."""
        unet, autoencoder, encoder = pipeline.unet.config, pipeline.vae.config, pipeline.text_encoder.config
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_autoencoder, autoencoder),
            "unet": partial(check_unet, unet, autoencoder.latent_channels, encoder.hidden_size),
            "text_encoder": partial(check_reader, Reader(pipeline)),
            "scheduler": partial(check_scheduler, pipeline.scheduler),
        }
        all_done(checks)
        try_networks(pipeline)

    @property
    def readers(self) -> Sequence[Reader]:
        """CLIP with its tokenizer."""
        return (Reader(self.pipeline),)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return the text encoder's last states, ``(n, length, dim)``."""
        network = self.pipeline.text_encoder
        return Conditioning(network(ids.to(network.device))[0])

    def condition_weighted(self, prompt: Prompt) -> Conditioning:
        """Return the last states of all chunks behind one another; see ``Family.condition_weighted``."""
        (reader,) = self.readers
        device = self.pipeline._execution_device  # offloaded weights wait elsewhere
        return Conditioning(weighted_features(reader, prompt, chunks_at_once([reader], prompt), device))

    def added_inputs(self, conditioning: Conditioning) -> Mapping[str, Mapping[str, Tensor]]:
        """Nothing."""
        return {}
