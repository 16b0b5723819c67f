"""A pico Stable Diffusion XL pipeline: real classes, random weights, no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from orthoplex.concepts import Concept, Token, token_names
from orthoplex.concepts.tokens.keys_values import KeysValues
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.models import Base
from tests.pico import (
    MAX_LENGTH,
    TEXT_WIDTH,
    build_autoencoder,
    build_text_encoder,
    build_tokenizer,
    make_concept,
)

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
    """A three-level denoiser whose layers are called as the published one's, of which it has fewer in a block."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        layers_per_block=2,
        norm_num_groups=4,
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=sum(WIDTHS.values()),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED_WIDTH,
    )


def build_pico_xl(folder: Path, *, seed: int = 0) -> Path:
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
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        )
        pipeline.save_pretrained(folder)
    return folder


def make_concept_xl(
    base: Base,
    name: str = "anna",
    *,
    selection: str = "attention",
    num_vectors: int = 1,
    tokens: str = "shared",
    scale: float = 0.3,
    seed: int = 0,
) -> Concept:
    """A concept of a base with random factors in the denoiser and both text encoders; tokens are in both, too.

    Args:
        base: The base.
        name: The concept's name.
        selection: The layers; ``none`` for no layers.
        num_vectors: The number of tokens.
        tokens: ``shared``, ``layerwise``, or ``keys-values``.
        scale: The size of the changes' entries.
        seed: Of everything.
    """
    concept = make_concept(
        base, name, selection=selection, text_encoder=selection != "none", num_vectors=0, scale=scale, seed=seed
    )
    generator = torch.Generator().manual_seed(seed + 1)
    layers = base.cross_attention_layers
    every: dict[str, Token] = {}
    for token in token_names(name, num_vectors) if num_vectors else ():
        rows = (len(layers),) if tokens == "layerwise" else ()
        vectors = {encoder: torch.randn(*rows, width, generator=generator) for encoder, width in WIDTHS.items()}
        if tokens == "layerwise":
            every[token] = LayerVectors(vectors, layers)
        elif tokens == "keys-values":
            added = {layer: torch.randn(2, width, generator=generator) for layer, width in base.key_widths.items()}
            every[token] = KeysValues(vectors, added)
        else:
            every[token] = Vector(vectors)
    return replace(concept, tokens=every)
