"""Tiny networks that pictures are measured with: real classes, random weights, no download."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from tests.pico import MAX_LENGTH, build_tokenizer


def build_clip(folder: Path, *, seed: int = 0) -> Path:
    """Save a CLIP model of two layers each, pictures of 32 pixels, with its tokenizer; returns the folder."""
    tokenizer = build_tokenizer(folder.with_name(folder.name + "-vocabulary"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_dino(folder: Path, *, seed: int = 0) -> Path:
    """Save a DINOv2 model of two layers; returns the folder."""
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Dinov2Model(config).save_pretrained(folder)
    return folder
