"""A pico Anima: real classes, random weights, no download."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AnimaModularPipeline,
    AnimaTextConditioner,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import Qwen3Config, Qwen3Model

from orthoplex.files import without_warnings
from tests.pico_flow import MAX_LENGTH, build_t5_tokenizer
from tests.pico_qwen import build_qwen_tokenizer
from tests.pico_qwen_image import build_video_autoencoder


def build_anima(folder: Path, *, seed: int = 0) -> Path:
    """Save a pico Anima into ``folder`` and return the folder."""
    with torch.random.fork_rng(devices=[]), without_warnings():
        torch.manual_seed(seed)
        tokenizer = build_qwen_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        t5_tokenizer = build_t5_tokenizer(folder.with_name(folder.name + "-vocabulary-t5"))
        config = Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
        pipeline = AnimaModularPipeline()
        pipeline.update_components(
            text_encoder=Qwen3Model(config),
            tokenizer=tokenizer,
            t5_tokenizer=t5_tokenizer,
            text_conditioner=AnimaTextConditioner(
                source_dim=24,
                target_dim=32,
                model_dim=32,
                num_layers=2,
                num_attention_heads=2,
                target_vocab_size=len(t5_tokenizer) + 3,
                min_sequence_length=MAX_LENGTH,
            ),
            transformer=CosmosTransformer3DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=2,
                mlp_ratio=2.0,
                text_embed_dim=32,
                adaln_lora_dim=8,
                max_size=(4, 16, 16),
                extra_pos_embed_type=None,
            ),
            vae=build_video_autoencoder(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
        pipeline.save_pretrained(str(folder), overwrite_modular_index=True)
    return folder
