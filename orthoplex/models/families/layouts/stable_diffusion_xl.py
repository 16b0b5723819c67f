"""Stable Diffusion XL, and the many bases of its shapes: Pony, Illustrious, NoobAI."""

from __future__ import annotations

from typing import Any

import torch

from orthoplex.models.families.layouts.layout import Layout, Names, Published
from orthoplex.models.families.layouts.text_encoders import clip_g, clip_l
from orthoplex.models.families.layouts.unet_names import unet_originals
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""Of stabilityai/stable-diffusion-xl-base-1.0; what is not named is the class's default."""


def _published() -> Published:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(_UNET)
        networks = {"unet": unet, "text_encoder": clip_l(), "text_encoder_2": clip_g()}
    return {"sdxl": networks, "sdxl-v": "sdxl"}


LAYOUT = Layout(
    components={"unet": "denoiser", "text_encoder": "text encoder", "text_encoder_2": "text encoder"},
    rules={
        "text_encoder*.*": "text",
        "unet.*attn2.to_k": "text",
        "unet.*attn2.to_v": "text",
        "unet.time_embedding.*": "time",
        "unet.add_embedding.*": "time",
        "unet.*.time_emb_proj": "time",
        "unet.*": "picture",
    },
    published=_published,
    names=Names(
        encoder_tags={
            "text_encoder": {"kohya": "te1", "comfy": "clip_l"},
            "text_encoder_2": {"kohya": "te2", "comfy": "clip_g"},
        },
        kohya_names="original",
        originals=unet_originals,
    ),
)
