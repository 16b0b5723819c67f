"""Pico pipelines whose text a language model of the Qwen family gives: real classes, random weights, no download."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from tests.pico import WORDS, byte_letters
from tests.pico_flow import build_flow_autoencoder

LENGTH = 56
"""Positions of every prompt."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def build_qwen_tokenizer(folder: Path, length: int = LENGTH) -> Qwen2TokenizerFast:
    """A byte-pair tokenizer that knows ``WORDS`` with a space in front, and falls back to bytes for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = byte_letters(), []
    for word in sorted(WORDS, key=len, reverse=True):
        parts = ["Ġ", *word]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            if parts[0] not in vocabulary:
                vocabulary.append(parts[0])
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2TokenizerFast",
        "model_max_length": length,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Qwen2TokenizerFast.from_pretrained(folder)


def qwen3_config(tokenizer: Qwen2TokenizerFast, *, width: int = 16, layers: int = 2, tied: bool = True) -> Qwen3Config:
    """A small language model; its head has the numbers of the embedding, or its own."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=tied,
    )


def build_z_image(folder: Path, *, seed: int = 0) -> Path:
    """Save a pico Z-Image into ``folder`` and return the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_qwen_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=build_flow_autoencoder(),
            text_encoder=Qwen3Model(qwen3_config(tokenizer, layers=3)),
            tokenizer=tokenizer,
            transformer=ZImageTransformer2DModel(
                in_channels=4,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=16,
                axes_dims=[4, 6, 6],
                axes_lens=[128, 32, 32],
            ),
        )
        pipeline.save_pretrained(folder)
    return folder


def build_klein(folder: Path, *, seed: int = 0, distilled: bool = False, tied: bool = True) -> Path:
    """Save a pico FLUX.2 Klein into ``folder`` and return the folder; untied it is as the 9B."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_qwen_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        autoencoder = AutoencoderKLFlux2(
            block_out_channels=(8, 8, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=32,
        )
        autoencoder.bn.running_mean.normal_(std=0.1)
        autoencoder.bn.running_var.uniform_(0.5, 2.0)
        pipeline = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
            vae=autoencoder,
            text_encoder=Qwen3ForCausalLM(qwen3_config(tokenizer, layers=27, tied=tied)),
            tokenizer=tokenizer,
            transformer=Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                timestep_guidance_channels=16,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            is_distilled=distilled,
        )
        pipeline.save_pretrained(folder)
    return folder
