"""Pico pipelines of flow matching: real classes, random weights, no download."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from orthoplex.files import without_warnings
from tests.pico import WORDS, build_text_encoder, build_tokenizer

MAX_LENGTH = 24


def build_t5_tokenizer(folder: Path) -> T5TokenizerFast:
    """A unigram tokenizer that knows ``WORDS`` and every ASCII letter."""
    folder.mkdir(parents=True, exist_ok=True)
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -float(place)) for place, word in enumerate(WORDS, start=1)]
    letters = [(chr(code), -100.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram([*special, *words, ("▁", -90.0), *letters], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": MAX_LENGTH,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "extra_ids": 0,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return T5TokenizerFast.from_pretrained(folder)


def build_t5(tokenizer: T5TokenizerFast, width: int = 24) -> T5EncoderModel:
    """A two-layer T5 encoder."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_flow_autoencoder(side: int = 32, channels: int = 4) -> AutoencoderKL:
    """A three-level autoencoder as FLUX.1 has it: latents are shifted and scaled."""
    return AutoencoderKL(
        sample_size=side,
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        scaling_factor=0.36,
        shift_factor=0.11,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_flux(folder: Path, *, seed: int = 0, guidance: bool = True) -> Path:
    """Save a pico FLUX.1 into ``folder`` and return the folder; without guidance it is as schnell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        tokenizer_2 = build_t5_tokenizer(folder.with_name(folder.name + "-vocabulary-2"))
        text_encoder, text_encoder_2 = build_text_encoder(tokenizer), build_t5(tokenizer_2, 32)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
            vae=build_flow_autoencoder(),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=FluxTransformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=text_encoder.config.hidden_size,
                guidance_embeds=guidance,
                axes_dims_rope=(4, 6, 6),
            ),
        )
        pipeline.save_pretrained(folder)
    return folder


def build_chroma(folder: Path, *, seed: int = 0) -> Path:
    """Save a pico Chroma into ``folder`` and return the folder."""
    with torch.random.fork_rng(devices=[]), without_warnings():  # the class imports from a place that it calls old
        torch.manual_seed(seed)
        tokenizer = build_t5_tokenizer(folder.with_name(folder.name + "-vocabulary"))
        pipeline = ChromaPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
            vae=build_flow_autoencoder(),
            text_encoder=build_t5(tokenizer, 32),
            tokenizer=tokenizer,
            transformer=ChromaTransformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(4, 6, 6),
                approximator_num_channels=8,
                approximator_hidden_dim=16,
                approximator_layers=1,
            ),
        )
        pipeline.save_pretrained(folder)
    return folder
