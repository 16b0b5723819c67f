"""Stable Diffusion XL, and what was made of it: Pony, Illustrious, NoobAI. Two CLIP text encoders side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.item_sizes import ItemSizes
from orthoplex.models.families.latent_check import check_autoencoder, check_reader, check_scheduler
from orthoplex.models.families.layouts.stable_diffusion_xl import LAYOUT
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.families.stable_diffusion_xl_check import check_lengths, check_scaling, check_unet, try_networks
from orthoplex.models.families.stable_diffusion_xl_folder import version_of
from orthoplex.models.families.unet import UNetFamily
from orthoplex.models.problems import all_done
from orthoplex.models.prompts.prompt import Prompt
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.weighted import chunks_at_once, weighted_features
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

_NETWORKS = {
    "vae": (AutoencoderKL, AutoencoderTiny),
    "text_encoder": (CLIPTextModel,),
    "text_encoder_2": (CLIPTextModelWithProjection,),
    "unet": (UNet2DConditionModel,),
}
"""Component to the classes that it may have."""


@final
class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL, and every base of its classes, whatever its size.

    ``Conditioning.extras`` hold ``pooled``, the second text encoder's projection ``(n, width)``, and ``sizes``, the six
    numbers of ``ItemSizes`` ``(n, 6)``: the base's resolution, unless ``with_sizes`` says others.
    """

    changed = ("unet", "text_encoder", "text_encoder_2")
    weighed = tuple(_NETWORKS)
    text_encoders = ("text_encoder", "text_encoder_2")
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer", "tokenizer_2")
    layout = LAYOUT
    upcasts = True

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> StableDiffusionXLPipeline:
        """Load a pipeline without a watermark; see ``Family.load``."""
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        zeros = index.get("force_zeros_for_empty_prompt", True)
        pipeline = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
        return without_bars(pipeline, folder)

    @classmethod
    def version(cls, pipeline: StableDiffusionXLPipeline) -> str:
        """Return ``sdxl`` or ``sdxl-v``."""
        return version_of(pipeline.scheduler.config.prediction_type)

    @classmethod
    def check(cls, pipeline: StableDiffusionXLPipeline) -> None:
        """Refuse parts that do not belong together, or that nothing here works with; see ``latent_check``."""
        readers, autoencoder = _readers(pipeline), pipeline.vae.config
        widths = [reader.network.config.hidden_size for reader in readers]
        pooled = pipeline.text_encoder_2.config.projection_dim
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_autoencoder, autoencoder),
            "scaling": partial(check_scaling, autoencoder),
            "unet": partial(check_unet, pipeline.unet, autoencoder.latent_channels, widths, pooled),
            **{reader.component: partial(check_reader, reader) for reader in readers},
            "scheduler": partial(check_scheduler, pipeline.scheduler),
        }
        all_done(checks)
        check_lengths(readers)
        try_networks(pipeline, readers)

    @property
    def readers(self) -> Sequence[Reader]:
        """CLIP-L and CLIP-bigG with their tokenizers."""
        return _readers(self.pipeline)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return the last states but one of both text encoders side by side, ``(n, length, Σ dim)``."""
        parts = self.words.apart(ids)
        outputs = [
            reader.network(parts[reader.component].to(reader.network.device), output_hidden_states=True)
            for reader in self.readers
        ]
        features = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return self._whole(features, outputs[-1].text_embeds)

    def condition_weighted(self, prompt: Prompt) -> Conditioning:
        """Return the states of all chunks behind one another; the projection is that of the words without weights."""
        readers = self.readers
        device = self.pipeline._execution_device  # offloaded weights wait elsewhere
        chunks = chunks_at_once(readers, prompt)
        parts = [weighted_features(reader, prompt, chunks, device, penultimate=True) for reader in readers]
        second = readers[-1]
        pooled = second.network(second.ids([prompt.text]).to(device)).text_embeds
        return self._whole(torch.cat(parts, dim=-1), pooled)

    def with_sizes(self, conditioning: Conditioning, sizes: Sequence[ItemSizes]) -> Conditioning:
        """Return prompts with the sizes of their pictures."""
        return _sized(conditioning, sizes)

    def unconditional(self, negative: str | Conditioning, prompts: Conditioning) -> Conditioning:
        """Return zeros for an empty negative prompt, where the base says so."""
        if negative != "" or not self.pipeline.config.force_zeros_for_empty_prompt:
            return super().unconditional(negative, prompts)
        pooled = torch.zeros_like(prompts.extras["pooled"])
        return Conditioning(torch.zeros_like(prompts.features), {**prompts.extras, "pooled": pooled})

    def added_inputs(self, conditioning: Conditioning) -> Mapping[str, Mapping[str, Tensor]]:
        """The projection, and the sizes."""
        added = {"text_embeds": conditioning.extras["pooled"], "time_ids": conditioning.extras["sizes"]}
        return {"added_cond_kwargs": added}

    def _whole(self, features: Tensor, pooled: Tensor) -> Conditioning:
        """Prompts with the sizes of the base's own pictures."""
        height, width = (side * self.pixels_per_latent for side in self.latent_shape[1:])
        sizes = [ItemSizes.whole(height, width)] * len(features)
        return _sized(Conditioning(features, {"pooled": pooled}), sizes)


def _sized(conditioning: Conditioning, sizes: Sequence[ItemSizes]) -> Conditioning:
    features = conditioning.features
    numbers = torch.tensor([item.numbers for item in sizes], dtype=features.dtype, device=features.device)
    return Conditioning(features, {**conditioning.extras, "sizes": numbers})


def _readers(pipeline: StableDiffusionXLPipeline) -> tuple[Reader, Reader]:
    return Reader(pipeline), Reader(pipeline, "text_encoder_2", "tokenizer_2")
