"""Published text encoders without numbers; call each on the meta device."""

from __future__ import annotations

from torch import nn

from orthoplex.models.quiet import quiet

with quiet():
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel


def clip_l() -> nn.Module:
    """Return CLIP-L of openai/clip-vit-large-patch14."""
    return CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12))


def clip_g() -> nn.Module:
    """Return CLIP-bigG of laion/CLIP-ViT-bigG-14-laion2B-39B-b160k."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=20,
            projection_dim=1280,
        )
    )


def t5_xxl() -> nn.Module:
    """Return the encoder of google/t5-v1_1-xxl."""
    return T5EncoderModel(
        T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    )
