"""Published text encoders, and what a layer of them sees."""

from __future__ import annotations

from torch import nn

from orthoplex.models.quiet import quiet

with quiet():
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
"""Of openai/clip-vit-large-patch14."""
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
"""Of laion/CLIP-ViT-bigG-14."""
_T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
"""Of google/t5-v1_1-xxl."""


def clip_l() -> nn.Module:
    """Return CLIP-L without numbers; call it on the meta device."""
    return CLIPTextModel(CLIPTextConfig(**CLIP_L))


def clip_g() -> nn.Module:
    """Return CLIP-bigG without numbers; call it on the meta device."""
    return CLIPTextModelWithProjection(CLIPTextConfig(**_CLIP_G))


def t5_xxl() -> nn.Module:
    """Return the encoder of T5-XXL without numbers; call it on the meta device."""
    return T5EncoderModel(T5Config(**_T5_XXL))
