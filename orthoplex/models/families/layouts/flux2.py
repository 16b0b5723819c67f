"""FLUX.2: dev, and klein in two sizes; the modulation is that of all blocks together."""

from __future__ import annotations

import torch

from orthoplex.models.families.layouts.flux_names import ATTENTION
from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel


def _published() -> Published:
    """Return dev, the class's defaults, and klein, whose sizes are those of the code that it was published with."""
    with torch.device("meta"):
        small = Flux2Transformer2DModel(
            num_layers=5,
            num_single_layers=20,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
        )
        large = Flux2Transformer2DModel(
            num_layers=8,
            num_single_layers=24,
            num_attention_heads=32,
            joint_attention_dim=12288,
            guidance_embeds=False,
        )
        return {
            "flux2": {"transformer": Flux2Transformer2DModel()},
            "flux2-klein-4b": {"transformer": small},
            "flux2-klein-9b": {"transformer": large},
        }


_SPELLING = Spelling(
    "transformer",
    {
        **ATTENTION,
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.linear_in",
        "double_blocks.{}.img_mlp.2": "transformer_blocks.{}.ff.linear_out",
        "double_blocks.{}.txt_mlp.0": "transformer_blocks.{}.ff_context.linear_in",
        "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.linear_out",
        "single_blocks.{}.linear1": "single_transformer_blocks.{}.attn.to_qkv_mlp_proj",
        "single_blocks.{}.linear2": "single_transformer_blocks.{}.attn.to_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    swapped_halves=frozenset({"final_layer.adaLN_modulation.1"}),
)

LAYOUT = Layout(
    components={"transformer": "denoiser"},
    rules={
        "transformer.context_embedder": "text",
        "transformer.time_guidance_embed.*": "time",
        "transformer.*_modulation*.linear": "time",
        "transformer.norm_out.linear": "time",
        "transformer.x_embedder": "picture",
        "transformer.proj_out": "picture",
        "transformer.transformer_blocks.*.attn.to_add_out": "both",
        "transformer.transformer_blocks.*.attn.to_*": "picture",
        "transformer.transformer_blocks.*.ff.*": "picture",
        "transformer.*": "both",
    },
    published=_published,
    names=Names(kohya_names="original", originals=_SPELLING.originals),
)
