"""Krea 2."""

from __future__ import annotations

import torch

from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel


def _published() -> Published:
    """Return the denoiser of krea/krea-2: the class's defaults."""
    with torch.device("meta"):
        return {"krea2": {"transformer": Krea2Transformer2DModel()}}


_STACKS = {
    "blocks": "transformer_blocks",
    "txtfusion.layerwise_blocks": "text_fusion.layerwise_blocks",
    "txtfusion.refiner_blocks": "text_fusion.refiner_blocks",
}
_PARTS = {
    "attn.wq": "attn.to_q",
    "attn.wk": "attn.to_k",
    "attn.wv": "attn.to_v",
    "attn.gate": "attn.to_gate",
    "attn.wo": "attn.to_out.0",
    "attn.qknorm.qnorm.scale": "attn.norm_q",
    "attn.qknorm.knorm.scale": "attn.norm_k",
    "prenorm.scale": "norm1",
    "postnorm.scale": "norm2",
    "mlp.gate": "ff.gate",
    "mlp.up": "ff.up",
    "mlp.down": "ff.down",
}
_SPELLING = Spelling(
    "transformer",
    {
        "first": "img_in",
        "tmlp.0": "time_embed.linear_1",
        "tmlp.2": "time_embed.linear_2",
        "tproj.1": "time_mod_proj",
        "txtmlp.0.scale": "txt_in.norm",
        "txtmlp.1": "txt_in.linear_1",
        "txtmlp.3": "txt_in.linear_2",
        "txtfusion.projector": "text_fusion.projector",
        **{
            f"{original}.{{}}.{part}": f"{stack}.{{}}.{ours}"
            for original, stack in _STACKS.items()
            for part, ours in _PARTS.items()
        },
        "last.norm.scale": "final_layer.norm",
        "last.linear": "final_layer.linear",
    },
)

LAYOUT = Layout(
    components={"transformer": "denoiser"},
    rules={
        "transformer.time_*": "time",
        "transformer.img_in": "picture",
        "transformer.final_layer.*": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(kohya_names="original", originals=_SPELLING.originals),
)
