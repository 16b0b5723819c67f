"""A Stable Diffusion 1.5 sized pipeline folder of random weights, as diffusers itself writes it."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
AUTOENCODER = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
VOCABULARY = 49408


def full_size_folder(folder: Path) -> Path:
    """Write the folder in float16, 2.1 GB, unless it is there already."""
    if (folder / "model_index.json").is_file():
        return folder
    torch.manual_seed(0)
    made = StableDiffusionPipeline(
        vae=_random(AutoencoderKL, AUTOENCODER),
        text_encoder=_random_text_encoder(),
        tokenizer=_tokenizer(),
        unet=_random(UNet2DConditionModel, UNET),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder)
    return folder


def _random(kind: type[nn.Module], options: dict[str, object]) -> nn.Module:
    with torch.device("meta"):
        network = kind(**options)
    return _filled(network)


def _random_text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=1,
    )
    return _filled(CLIPTextModel(config))


def _filled(network: nn.Module) -> nn.Module:
    """Give a network random weights in float16, at the peak of one network and one weight in float32."""
    network = network.half()
    if any(weights.is_meta for weights in network.parameters()):
        network = network.to_empty(device="cpu")
    for weights in network.parameters():
        weights.requires_grad_(False).copy_(torch.randn(weights.shape) * 0.02)
    return network


def _tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer of the usual size; its words are pairs of letters."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    pairs = itertools.islice(itertools.product(letters, letters), VOCABULARY - 2 * 256 - 2)
    merges = list(pairs)
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=77, pad_token="<|endoftext|>")
