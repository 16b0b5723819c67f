"""A pico Stable Diffusion XL pipeline: real classes, random weights, no download."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from tests.pico import MAX_LENGTH, TEXT_WIDTH, build_autoencoder, build_text_encoder, build_tokenizer

WIDTHS = {"text_encoder": TEXT_WIDTH, "text_encoder_2": 16}
POOLED_WIDTH = 12


def build_second_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A three-layer CLIP text encoder with a projection of another width."""
    width = WIDTHS["text_encoder_2"]
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=POOLED_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def build_unet_xl() -> UNet2DConditionModel:
    """A three-level denoiser: one and two transformer blocks on the lower levels, as published ones have it."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=sum(WIDTHS.values()),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED_WIDTH,
    )


def build_pico_xl(folder: Path, *, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Save a pico pipeline into ``folder`` and return the folder; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vocabulary = folder.with_name(folder.name + "-vocabulary")
        one, two = (build_tokenizer(vocabulary / name) for name in ("one", "two"))
        two.pad_token = "!"
        pipeline = StableDiffusionXLPipeline(
            vae=build_autoencoder(),
            text_encoder=build_text_encoder(one),
            text_encoder_2=build_second_encoder(two),
            tokenizer=one,
            tokenizer_2=two,
            unet=build_unet_xl(),
            scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", prediction_type=prediction_type),
        )
        pipeline.save_pretrained(folder)
    return folder
