"""Z-Image, Turbo and Base."""

from __future__ import annotations

import torch

from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel


def _published() -> Published:
    """Return the denoiser of Tongyi-MAI/Z-Image-Turbo: the class's defaults."""
    with torch.device("meta"):
        return {"z-image": {"transformer": ZImageTransformer2DModel()}}


_STACKS = ("noise_refiner", "context_refiner", "layers")
_SAME = (
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "adaLN_modulation.0"),
    *("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"),
)
_ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v")
_SPELLING = Spelling(
    "transformer",
    {
        "x_embedder": "all_x_embedder.2-1",
        "t_embedder.mlp.0": "t_embedder.mlp.0",
        "t_embedder.mlp.2": "t_embedder.mlp.2",
        "cap_embedder.0": "cap_embedder.0",
        "cap_embedder.1": "cap_embedder.1",
        **{f"{stack}.{{}}.attention.qkv": tuple(f"{stack}.{{}}.{part}" for part in _ATTENTION) for stack in _STACKS},
        **{f"{stack}.{{}}.attention.out": f"{stack}.{{}}.attention.to_out.0" for stack in _STACKS},
        **{
            f"{stack}.{{}}.attention.{part}_norm": f"{stack}.{{}}.attention.norm_{part}"
            for stack in _STACKS
            for part in "qk"
        },
        **{f"{stack}.{{}}.{part}": f"{stack}.{{}}.{part}" for stack in _STACKS for part in _SAME},
        "final_layer.linear": "all_final_layer.2-1.linear",
        "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
    },
)
"""The names of the checkpoint in one file, which other programs have; the published code has diffusers' names."""

LAYOUT = Layout(
    components={"transformer": "denoiser"},
    rules={
        "transformer.cap_embedder.*": "text",
        "transformer.t_embedder.*": "time",
        "transformer.*.adaLN_modulation.*": "time",
        "transformer.all_x_embedder.*": "picture",
        "transformer.noise_refiner.*": "picture",
        "transformer.all_final_layer.*": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(kohya_names="original", originals=_SPELLING.originals),
)
