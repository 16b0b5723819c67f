"""Stable Diffusion 1 and 2: a U-Net with cross-attention on the features of one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.discrete import DiscreteFamily
from orthoplex.models.families.latent_check import check_autoencoder, check_reader, check_scheduler
from orthoplex.models.families.layouts.stable_diffusion import LAYOUT
from orthoplex.models.families.parts import load_parts
from orthoplex.models.families.stable_diffusion_check import check_unet, try_networks
from orthoplex.models.families.stable_diffusion_folder import version_of
from orthoplex.models.layer_names import component_name, cross_attention_modules, select_linear_layers
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
class StableDiffusion(DiscreteFamily):
    """Stable Diffusion 1 and 2, and every base of their classes, whatever its size."""

    changed = ("unet", "text_encoder")
    weighed = tuple(_NETWORKS)
    text_encoders = clip_encoders = ("text_encoder",)
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
        pipeline.register_to_config(_name_or_path=str(folder))  # as pipelines that the library loads say it
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

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
    def denoiser(self) -> nn.Module:
        """The U-Net."""
        return self.pipeline.unet

    def select(self, selection: str, *, text_encoder: bool) -> dict[str, nn.Linear]:
        """Return the linear layers of the U-Net's transformer blocks, and of the text encoder's."""
        return select_linear_layers(self.components(), selection, text_encoder=text_encoder)

    @property
    def readers(self) -> Sequence[Reader]:
        """CLIP with its tokenizer."""
        return (Reader(self.pipeline),)

    def cross_attention(self) -> Mapping[str, nn.Module]:
        """The layers ``attn2``: down blocks, the middle block, up blocks, in each of them as they are numbered."""
        paths = cross_attention_modules(self.pipeline.unet)
        return {component_name("unet", path): module for path, module in paths.items()}

    def condition(self, prompts: Sequence[str] | Tensor) -> Conditioning:
        """Return the text encoder's last states, ``(n, length, dim)``."""
        ids = prompts if isinstance(prompts, Tensor) else self.words.ids(prompts)
        network = self.pipeline.text_encoder
        return Conditioning(network(ids.to(network.device))[0])

    def condition_weighted(self, prompt: Prompt) -> Conditioning:
        """Return the last states of all chunks behind one another; see ``Family.condition_weighted``."""
        (reader,) = self.readers
        device = self.pipeline._execution_device  # offloaded weights wait elsewhere
        return Conditioning(weighted_features(reader, prompt, chunks_at_once([reader], prompt), device))

    @property
    def text_width(self) -> int:
        """The width that keys and values of cross-attention read."""
        return self.pipeline.unet.config.cross_attention_dim

    @property
    def passes_features(self) -> bool:
        """True if the U-Net neither projects nor normalizes them first."""
        config = self.pipeline.unet.config
        names = ("encoder_hid_dim", "encoder_hid_dim_type", "cross_attention_norm")
        return not any(config.get(name) for name in names)

    @property
    def own_latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)``."""
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return what the U-Net predicts: ε, v or x_0, as ``schedule`` says."""
        unet, first = self.pipeline.unet, next(self.pipeline.unet.parameters())
        inputs = (noisy, conditioning.features)
        if not all((tensor.dtype, tensor.device) == (first.dtype, first.device) for tensor in inputs):
            dtype, device = unet.dtype, unet.device  # which diffusers answers by a walk through all modules
            noisy, conditioning = noisy.to(device, dtype), conditioning.to(dtype, device)
        return unet(
            noisy,
            times.to(noisy.device),
            conditioning.features,
            timestep_cond=conditioning.extras.get("guidance"),
        ).sample

    def with_guidance(self, conditioning: Conditioning, guidance_scale: float) -> Conditioning | None:
        """Return prompts with an embedding of the guidance, for U-Nets that are distilled to read it."""
        width = self.pipeline.unet.config.time_cond_proj_dim
        if width is None:
            return None
        scales = torch.tensor(guidance_scale - 1).repeat(len(conditioning))
        embedding = self.pipeline.get_guidance_scale_embedding(scales, width)
        return Conditioning(conditioning.features, {"guidance": embedding})
