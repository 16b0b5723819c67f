"""FLUX.1: dev, with the guidance that schnell has not; Krea and Kontext have the same shapes."""

from __future__ import annotations

import torch

from orthoplex.models.families.layouts.flux_names import STREAMS
from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.families.layouts.text_encoders import clip_l, t5_xxl
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel


def _published() -> Published:
    """Return the networks of black-forest-labs/FLUX.1-dev: the class's defaults, with guidance."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
        return {"flux1": {"transformer": transformer, "text_encoder": clip_l(), "text_encoder_2": t5_xxl()}}


_SPELLING = Spelling(
    "transformer",
    {
        **STREAMS,
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "double_blocks.{}.img_mod.lin": "transformer_blocks.{}.norm1.linear",
        "double_blocks.{}.txt_mod.lin": "transformer_blocks.{}.norm1_context.linear",
        "single_blocks.{}.modulation.lin": "single_transformer_blocks.{}.norm.linear",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    swapped_halves=frozenset({"final_layer.adaLN_modulation.1"}),
)

LAYOUT = Layout(
    components={"transformer": "denoiser", "text_encoder": "text encoder", "text_encoder_2": "text encoder"},
    rules={
        "text_encoder*.*": "text",
        "transformer.context_embedder": "text",
        "transformer.time_text_embed.*": "time",
        "transformer.*.norm*.linear": "time",
        "transformer.norm_out.linear": "time",
        "transformer.x_embedder": "picture",
        "transformer.proj_out": "picture",
        "transformer.transformer_blocks.*.attn.to_add_out": "both",
        "transformer.transformer_blocks.*.attn.to_*": "picture",
        "transformer.transformer_blocks.*.ff.*": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(
        encoder_tags={
            "text_encoder": {"kohya": "te1", "comfy": "clip_l"},
            "text_encoder_2": {"kohya": "te3", "comfy": "t5xxl"},
        },
        kohya_names="original",
        originals=_SPELLING.originals,
    ),
)
