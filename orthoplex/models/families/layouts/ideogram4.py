"""Ideogram 4."""

from __future__ import annotations

import torch

from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_ideogram4 import Ideogram4Transformer2DModel


def _published() -> Published:
    """Return the denoiser that reads the prompt: the class's defaults."""
    with torch.device("meta"):
        return {"ideogram4": {"transformer": Ideogram4Transformer2DModel()}}


_SAME = (
    "input_proj",
    "llm_cond_proj",
    "t_embedding.mlp_in",
    "t_embedding.mlp_out",
    "adaln_proj",
    "layers.{}.feed_forward.w1",
    "layers.{}.feed_forward.w2",
    "layers.{}.feed_forward.w3",
    "layers.{}.adaln_modulation",
    "final_layer.linear",
    "final_layer.adaln_modulation",
)
_SPELLING = Spelling(
    "transformer",
    {
        **{name: name for name in _SAME},
        "layers.{}.attention.qkv": (
            "layers.{}.attention.to_q",
            "layers.{}.attention.to_k",
            "layers.{}.attention.to_v",
        ),
        "layers.{}.attention.o": "layers.{}.attention.to_out.0",
    },
)

LAYOUT = Layout(
    components={"transformer": "denoiser"},
    rules={
        "transformer.llm_cond_proj": "text",
        "transformer.t_embedding.*": "time",
        "transformer.adaln_proj": "time",
        "transformer.*.adaln_modulation": "time",
        "transformer.input_proj": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(kohya_names="original", originals=_SPELLING.originals),
)
