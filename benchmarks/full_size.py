"""Pipeline folders of random weights, of the size of Stable Diffusion 1.5 or XL, as diffusers writes them."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

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


UNET_XL = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def full_size_xl_folder(folder: Path, *, small: bool = False) -> Path:
    """Write the folder in float16, 6.9 GB in shards, unless it is there already; ``small`` has fewer blocks."""
    if (folder / "model_index.json").is_file():
        return folder
    ends = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": 1}
    second = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=1280,
        intermediate_size=5120,
        projection_dim=1280,
        num_hidden_layers=2 if small else 32,
        num_attention_heads=20,
        hidden_act="gelu",
        **ends,
    )
    with torch.device("meta"):
        text_encoder_2 = CLIPTextModelWithProjection(second)
    autoencoder = _random(AutoencoderKL, AUTOENCODER)
    autoencoder.register_to_config(scaling_factor=0.13025)
    made = StableDiffusionXLPipeline(
        vae=autoencoder,
        text_encoder=_random_text_encoder(),
        text_encoder_2=_with_buffers(text_encoder_2, torch.float16),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=random_xl_denoiser(torch.float16, small=small),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    made.save_pretrained(folder)
    return folder


def random_xl_denoiser(dtype: torch.dtype, *, small: bool = False) -> UNet2DConditionModel:
    """Return a denoiser of random weights, frozen; ``small`` has fewer transformer blocks."""
    blocks = {"transformer_layers_per_block": (1, 1, 1)} if small else {}
    with torch.device("meta"):
        network = UNet2DConditionModel(**{**UNET_XL, **blocks})
    return _with_buffers(network, dtype).eval()


def _with_buffers(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give a network on the meta device numbers: one tile of small random ones, again and again, which is quick."""
    nn.Module.to(network, dtype)
    network.to_empty(device="cpu")
    tile = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul(0.02).to(dtype)
    for name, weights in network.named_parameters():
        flat = weights.requires_grad_(False).view(-1)
        if weights.ndim == 1:
            flat.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        for piece in flat.split(len(tile)):
            piece.copy_(tile[: len(piece)])
    for name, values in network.named_buffers():
        if name.endswith("position_ids"):
            values.copy_(torch.arange(values.shape[-1]).expand_as(values))
    return network


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
