"""Anima: Cosmos-Predict2 of 2B, and a conditioner that reads the text encoder's states for it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from orthoplex.concepts.layer_table import OriginalModule
from orthoplex.models.families.layouts.layout import Layout, Names, Published, Spelling
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
    from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel


def _published() -> Published:
    """Return the networks of Anima.

    Their sizes are those that diffusers' conversion script has for Cosmos-2.0-Diffusion-2B-Text2Image; the
    conditioner's are its class's defaults.
    """
    with torch.device("meta"):
        transformer = CosmosTransformer3DModel(num_attention_heads=16, extra_pos_embed_type=None)
        return {"anima": {"transformer": transformer, "text_conditioner": AnimaTextConditioner()}}


_PARTS = {
    "adaln_modulation_self_attn.1": "norm1.linear_1",
    "adaln_modulation_self_attn.2": "norm1.linear_2",
    "adaln_modulation_cross_attn.1": "norm2.linear_1",
    "adaln_modulation_cross_attn.2": "norm2.linear_2",
    "adaln_modulation_mlp.1": "norm3.linear_1",
    "adaln_modulation_mlp.2": "norm3.linear_2",
    "self_attn.q_proj": "attn1.to_q",
    "self_attn.k_proj": "attn1.to_k",
    "self_attn.v_proj": "attn1.to_v",
    "self_attn.q_norm": "attn1.norm_q",
    "self_attn.k_norm": "attn1.norm_k",
    "self_attn.output_proj": "attn1.to_out.0",
    "cross_attn.q_proj": "attn2.to_q",
    "cross_attn.k_proj": "attn2.to_k",
    "cross_attn.v_proj": "attn2.to_v",
    "cross_attn.q_norm": "attn2.norm_q",
    "cross_attn.k_norm": "attn2.norm_k",
    "cross_attn.output_proj": "attn2.to_out.0",
    "mlp.layer1": "ff.net.0.proj",
    "mlp.layer2": "ff.net.2",
}
_SPELLING = Spelling(
    "transformer",
    {
        "x_embedder.proj.1": "patch_embed.proj",
        "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
        "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
        "t_embedding_norm": "time_embed.norm",
        **{f"blocks.{{}}.{part}": f"transformer_blocks.{{}}.{ours}" for part, ours in _PARTS.items()},
        "final_layer.adaln_modulation.1": "norm_out.linear_1",
        "final_layer.adaln_modulation.2": "norm_out.linear_2",
        "final_layer.linear": "proj_out",
    },
)


def _originals(layers: Iterable[str]) -> dict[str, OriginalModule]:
    """Return the denoiser's modules, and the conditioner's, which stand in its file as ``llm_adapter``."""
    names = list(layers)
    prefix = "text_conditioner."
    adapter = {
        f"llm_adapter.{name.removeprefix(prefix)}": OriginalModule((name,)) for name in names if name.startswith(prefix)
    }
    return {**_SPELLING.originals(names), **adapter}


LAYOUT = Layout(
    components={"transformer": "denoiser", "text_conditioner": "text encoder"},
    rules={
        "text_conditioner.*": "text",
        "transformer.*attn2.to_k": "text",
        "transformer.*attn2.to_v": "text",
        "transformer.time_embed.*": "time",
        "transformer.*norm*.linear_*": "time",
        "transformer.*": "picture",
    },
    published=_published,
    names=Names(kohya_names="original", originals=_originals),
)
