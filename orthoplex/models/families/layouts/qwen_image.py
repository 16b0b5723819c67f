"""Qwen-Image, and its later and editing versions of the same shapes; diffusers' names are the original ones."""

from __future__ import annotations

import torch

from orthoplex.models.families.layouts.layout import Layout, Names, Published, same_names
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel


def _published() -> Published:
    """Return the denoiser of Qwen/Qwen-Image: the class's defaults."""
    with torch.device("meta"):
        return {"qwen-image": {"transformer": QwenImageTransformer2DModel()}}


LAYOUT = Layout(
    components={"transformer": "denoiser"},
    rules={
        "transformer.txt_in": "text",
        "transformer.time_text_embed.*": "time",
        "transformer.*_mod.1": "time",
        "transformer.norm_out.linear": "time",
        "transformer.img_in": "picture",
        "transformer.proj_out": "picture",
        "transformer.*.attn.to_add_out": "both",
        "transformer.*.attn.to_*": "picture",
        "transformer.*.img_mlp.*": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(kohya_names="diffusers", originals=same_names),
)
