"""The names of modules that FLUX.1, Chroma and FLUX.2 share in the code that they were published with."""

from __future__ import annotations

from collections.abc import Mapping

ATTENTION: Mapping[str, str | tuple[str, ...]] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "double_blocks.{}.img_attn.qkv": (
        "transformer_blocks.{}.attn.to_q",
        "transformer_blocks.{}.attn.to_k",
        "transformer_blocks.{}.attn.to_v",
    ),
    "double_blocks.{}.img_attn.proj": "transformer_blocks.{}.attn.to_out.0",
    "double_blocks.{}.txt_attn.qkv": (
        "transformer_blocks.{}.attn.add_q_proj",
        "transformer_blocks.{}.attn.add_k_proj",
        "transformer_blocks.{}.attn.add_v_proj",
    ),
    "double_blocks.{}.txt_attn.proj": "transformer_blocks.{}.attn.to_add_out",
    "double_blocks.{}.img_attn.norm.query_norm.scale": "transformer_blocks.{}.attn.norm_q",
    "double_blocks.{}.img_attn.norm.key_norm.scale": "transformer_blocks.{}.attn.norm_k",
    "double_blocks.{}.txt_attn.norm.query_norm.scale": "transformer_blocks.{}.attn.norm_added_q",
    "double_blocks.{}.txt_attn.norm.key_norm.scale": "transformer_blocks.{}.attn.norm_added_k",
    "single_blocks.{}.norm.query_norm.scale": "single_transformer_blocks.{}.attn.norm_q",
    "single_blocks.{}.norm.key_norm.scale": "single_transformer_blocks.{}.attn.norm_k",
    "final_layer.linear": "proj_out",
}
"""The inputs, the attention of the double blocks, the norms of all blocks, and the output."""
STREAMS: Mapping[str, str | tuple[str, ...]] = {
    **ATTENTION,
    "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.net.0.proj",
    "double_blocks.{}.img_mlp.2": "transformer_blocks.{}.ff.net.2",
    "double_blocks.{}.txt_mlp.0": "transformer_blocks.{}.ff_context.net.0.proj",
    "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.net.2",
    "single_blocks.{}.linear1": (
        "single_transformer_blocks.{}.attn.to_q",
        "single_transformer_blocks.{}.attn.to_k",
        "single_transformer_blocks.{}.attn.to_v",
        "single_transformer_blocks.{}.proj_mlp",
    ),
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.proj_out",
}
"""All modules of FLUX.1 and Chroma but those of the time."""
