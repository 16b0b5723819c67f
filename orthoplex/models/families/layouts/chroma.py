"""Chroma: FLUX.1 without modulation in its blocks, and T5 alone."""

from __future__ import annotations

import warnings

import torch

from orthoplex.models.families.layouts.flux_names import STREAMS
from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.families.layouts.text_encoders import t5_xxl
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel


def _published() -> Published:
    """Return the networks of lodestones/Chroma1-HD: the class's defaults."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the class itself imports a part from its former place
        return {"chroma": {"transformer": ChromaTransformer2DModel(), "text_encoder": t5_xxl()}}


_SPELLING = Spelling(
    "transformer",
    {
        **STREAMS,
        "distilled_guidance_layer.in_proj": "distilled_guidance_layer.in_proj",
        "distilled_guidance_layer.layers.{}.in_layer": "distilled_guidance_layer.layers.{}.linear_1",
        "distilled_guidance_layer.layers.{}.out_layer": "distilled_guidance_layer.layers.{}.linear_2",
        "distilled_guidance_layer.norms.{}.scale": "distilled_guidance_layer.norms.{}",
        "distilled_guidance_layer.out_proj": "distilled_guidance_layer.out_proj",
    },
)

LAYOUT = Layout(
    components={"transformer": "denoiser", "text_encoder": "text encoder"},
    rules={
        "text_encoder.*": "text",
        "transformer.context_embedder": "text",
        "transformer.distilled_guidance_layer.*": "time",
        "transformer.x_embedder": "picture",
        "transformer.proj_out": "picture",
        "transformer.transformer_blocks.*.attn.to_add_out": "both",
        "transformer.transformer_blocks.*.attn.to_*": "picture",
        "transformer.transformer_blocks.*.ff.*": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(
        encoder_tags={"text_encoder": {"kohya": "te3", "comfy": "t5xxl"}},
        kohya_names="original",
        originals=_SPELLING.originals,
    ),
)
