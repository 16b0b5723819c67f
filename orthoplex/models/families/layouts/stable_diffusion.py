"""Stable Diffusion 1 and 2, and the embedded base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orthoplex import vignette
from orthoplex.files import read_json
from orthoplex.models.families.layouts.layout import Layout, Names, Published
from orthoplex.models.families.layouts.unet_names import unet_originals
from orthoplex.models.quiet import quiet
from orthoplex.models.versions import EMBEDDED

with quiet():
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

_UNET = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280)}
_SD1 = {
    "unet": {**_UNET, "cross_attention_dim": 768, "attention_head_dim": 8},
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
}
"""Of runwayml/stable-diffusion-v1-5; what is not named is the classes' default."""
_SD2 = {
    "unet": {
        **_UNET,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "text_encoder": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23},
}
"""Of stabilityai/stable-diffusion-2-1."""


def _published() -> Published:
    configs = {"sd1": _SD1, "sd2": _SD2, EMBEDDED: _stored_configs(vignette.folder())}
    return {**{version: _shells(config) for version, config in configs.items()}, "sd2-v": "sd2"}


def _shells(config: Mapping[str, Mapping[str, Any]]) -> dict[str, nn.Module]:
    """The networks that concepts change, without numbers."""
    with torch.device("meta"):
        text_encoder = CLIPTextModel(CLIPTextConfig(**config["text_encoder"]))
        unet: Any = UNet2DConditionModel.from_config(dict(config["unet"]))
        return {"unet": unet, "text_encoder": text_encoder}


def _stored_configs(folder: Path) -> dict[str, dict[str, Any]]:
    return {component: read_json(folder / component / "config.json") for component in ("unet", "text_encoder")}


LAYOUT = Layout(
    components={"unet": "denoiser", "text_encoder": "text encoder"},
    rules={
        "text_encoder.*": "text",
        "unet.*attn2.to_k": "text",
        "unet.*attn2.to_v": "text",
        "unet.time_embedding.*": "time",
        "unet.*.time_emb_proj": "time",
        "unet.*": "picture",
    },
    published=_published,
    names=Names(
        encoder_tags={"text_encoder": {"kohya": "te", "comfy": "clip_l"}},
        kohya_names="diffusers",
        originals=unet_originals,
    ),
)
