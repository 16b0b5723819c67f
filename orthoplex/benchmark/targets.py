"""Models to measure costs on, and the peers to measure beside; the one file here that imports their libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from orthoplex.concepts import BaseIdentity
from orthoplex.errors import MissingExtraError
from orthoplex.models import Base, load_base

RANDOM_SD15 = "sd15"
_SD15_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
"""The published configuration of runwayml/stable-diffusion-v1-5, `unet/config.json`; the rest are its defaults."""


def load_target(name: str, *, dtype: torch.dtype = torch.float32) -> Base:
    """A model whose costs are measured: `"sd15"` (random weights) or whatever `load_base` takes.

    Time and memory do not depend on the weights' values, so random ones measure the same.
    """
    return random_sd15(dtype) if name == RANDOM_SD15 else load_base(name, dtype=dtype)


def random_sd15(dtype: torch.dtype = torch.float32) -> Base:
    """Stable Diffusion 1.5's denoiser, 860 M parameters of random values, with a small stand-in for a text encoder."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**_SD15_UNET)
    unet.to_empty(device="cpu")
    torch.nn.Module.to(unet, dtype)
    _fill(unet)
    text = CLIPTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=62,
        eos_token_id=63,
        pad_token_id=63,
    )
    pipeline = StableDiffusionPipeline(
        vae=None,  # pyright: ignore[reportArgumentType]  # no picture is ever made
        text_encoder=CLIPTextModel(text),
        tokenizer=None,  # pyright: ignore[reportArgumentType]  # no prompt is ever read
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),  # pyright: ignore[reportArgumentType]  # as usual
        safety_checker=None,  # pyright: ignore[reportArgumentType]  # documented as optional
        feature_extractor=None,  # pyright: ignore[reportArgumentType]  # documented as optional
        requires_safety_checker=False,
    )
    for component in (pipeline.unet, pipeline.text_encoder):
        component.requires_grad_(False).eval()
    return Base(pipeline, BaseIdentity(family="sd1", hash="0" * 64, name="random-sd15"))


@contextmanager
def peft_lora(unet: nn.Module, paths: Sequence[str], rank: int) -> Iterator[list[nn.Parameter]]:
    """Inside, PEFT's LoRA is on the named linear layers, through diffusers; yields its parameters.

    Args:
        unet: A diffusers denoiser.
        paths: Layers, as paths inside it.
        rank: Rank of every adapter; alpha is the same, so that the scale is 1.

    Raises:
        MissingExtraError: When PEFT is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError("the cost of PEFT's LoRA", "peft", "costs") from error
    model: Any = unet
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(paths)))
    try:
        yield [parameter for parameter in model.parameters() if parameter.requires_grad]
    finally:
        model.unload_lora()


@torch.no_grad()
def _fill(module: nn.Module) -> None:
    """Small normal numbers in every matrix, ones and zeros in the norms: one tile repeated, which is quick."""
    tile = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            flat = parameter.view(-1)
            for start in range(0, flat.numel(), tile.numel()):
                piece = flat[start : start + tile.numel()]
                piece.copy_(tile[: piece.numel()])
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
