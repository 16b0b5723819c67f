"""Pico pipelines with Qwen-Image's autoencoder and template: real classes, random weights, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2TokenizerFast,
    Qwen3VLConfig,
    Qwen3VLModel,
)

from tests.pico_qwen import build_qwen_tokenizer

LENGTH = 72
"""Positions of every prompt, the 34 of the template in front included."""
_TEMPLATE = (
    "system Describe  the  image  by  detailing  color  shape  size  texture  quantity  text  spatial  relationships "
    " of  objects  and  background user assistant"
)


def build_template_tokenizer(folder: Path) -> Qwen2TokenizerFast:
    """One that has a token for every word of the template, as the published one: 34 in front, 5 behind."""
    tokenizer = build_qwen_tokenizer(folder, LENGTH)
    pieces = _TEMPLATE.replace("  ", " \0").split(" ")
    tokenizer.add_tokens([piece.replace("\0", " ") for piece in pieces])
    return tokenizer


def build_video_autoencoder(side: int = 32) -> AutoencoderKLQwenImage:
    """A three-level autoencoder of videos, whose latents have a mean and a deviation for each channel."""
    network = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[-0.7, 0.1, 0.4, -0.2],
        latents_std=[2.8, 1.4, 2.3, 1.2],
    )
    network.register_to_config(sample_size=side)
    return network


def _language_settings(tokenizer: Qwen2TokenizerFast, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }


def build_qwen_image(folder: Path, *, seed: int = 0) -> Path:
    """Save a pico Qwen-Image into ``folder`` and return the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_template_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        config = Qwen2_5_VLConfig(
            text_config={
                **_language_settings(tokenizer, 2),
                "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 16,
                "fullatt_block_indexes": [0],
            },
            tie_word_embeddings=False,
        )
        pipeline = QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
            ),
            vae=build_video_autoencoder(),
            text_encoder=Qwen2_5_VLForConditionalGeneration(config),
            tokenizer=tokenizer,
            transformer=QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=(4, 6, 6),
            ),
        )
        pipeline.save_pretrained(folder)
    return folder


def build_krea2(folder: Path, *, seed: int = 0, distilled: bool = False) -> Path:
    """Save a pico Krea 2 into ``folder`` and return the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_template_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        config = Qwen3VLConfig(
            text_config={
                **_language_settings(tokenizer, 3),
                "head_dim": 8,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 16,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
        )
        transformer = Krea2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=16,
            num_text_layers=3,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=24,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        )
        pipeline = Krea2Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=6400
            ),
            vae=build_video_autoencoder(),
            text_encoder=Qwen3VLModel(config),
            tokenizer=tokenizer,
            transformer=transformer,
            text_encoder_select_layers=(0, 2, 3),
            is_distilled=distilled,
        )
        pipeline.save_pretrained(folder)
    return folder
