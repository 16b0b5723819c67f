"""Bases whose denoiser is a U-Net of diffusers with cross-attention on the text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.discrete import DiscreteFamily
from orthoplex.models.layer_names import component_name, cross_attention_modules, select_linear_layers


class UNetFamily(DiscreteFamily):
    """Pipelines with a ``UNet2DConditionModel`` as ``unet`` and CLIP's text encoders."""

    @abstractmethod
    def added_inputs(self, conditioning: Conditioning) -> Mapping[str, Mapping[str, Tensor]]:
        """Return what the U-Net reads of prompts besides features, as keyword arguments.

        Args:
            conditioning: In the U-Net's data type, on its device.
        """

    @final
    @property
    def denoiser(self) -> nn.Module:
        """The U-Net."""
        return self.pipeline.unet

    @final
    def select(self, selection: str, *, text_encoder: bool) -> dict[str, nn.Linear]:
        """Return the linear layers of the U-Net's transformer blocks, and of the text encoders'."""
        return select_linear_layers(self.components(), selection, text_encoder=text_encoder)

    @final
    def cross_attention(self) -> Mapping[str, nn.Module]:
        """The layers ``attn2``: down blocks, the middle block, up blocks, in each of them as they are numbered."""
        paths = cross_attention_modules(self.pipeline.unet)
        return {component_name("unet", path): module for path, module in paths.items()}

    @final
    @property
    def text_width(self) -> int:
        """The width that keys and values of cross-attention read."""
        return self.pipeline.unet.config.cross_attention_dim

    @final
    @property
    def passes_features(self) -> bool:
        """True if the U-Net neither projects nor normalizes them first."""
        config = self.pipeline.unet.config
        names = ("encoder_hid_dim", "encoder_hid_dim_type", "cross_attention_norm")
        return not any(config.get(name) for name in names)

    @final
    @property
    def own_latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)``."""
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @final
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
            **self.added_inputs(conditioning),
        ).sample

    @final
    def with_guidance(self, conditioning: Conditioning, guidance_scale: float) -> Conditioning | None:
        """Return prompts with an embedding of the guidance, for U-Nets that are distilled to read it."""
        width = self.pipeline.unet.config.time_cond_proj_dim
        if width is None:
            return None
        scales = torch.tensor(guidance_scale - 1).repeat(len(conditioning))
        embedding = self.pipeline.get_guidance_scale_embedding(scales, width).to(conditioning.features)
        return Conditioning(conditioning.features, {**conditioning.extras, "guidance": embedding})
