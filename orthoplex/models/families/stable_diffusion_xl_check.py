"""The check of a loaded Stable Diffusion XL: sizes that its three networks share, and which settings are usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from orthoplex.errors import BaseModelError
from orthoplex.models.families.latent_check import (
    is_unusual,
    own_settings,
    try_autoencoder,
    try_network,
    try_text_encoder,
)
from orthoplex.models.families.stable_diffusion_check import (
    USUAL_AUTOENCODER,
    USUAL_TEXT,
    USUAL_UNET,
    check_denoiser,
)
from orthoplex.models.words.words import Reader

NUM_SIZES = 6
"""Numbers that the denoiser reads of a picture's sizes: those of ``ItemSizes``."""
_USUAL_UNET = USUAL_UNET | {
    "transformer_layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
}
_ADDED = "text_time"


def check_unet(unet: Any, latent_channels: int, widths: Sequence[int], pooled_width: int) -> None:  # noqa: ANN401
    """Refuse a U-Net that reads other things than latents, the features of both text encoders, and added conditions.

    Args:
        unet: Of diffusers.
        latent_channels: Channels of the autoencoder's latents.
        widths: Widths of the text encoders' features.
        pooled_width: Width of the second text encoder's projection.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    config: Mapping[str, Any] = unet.config
    added = config.get("addition_embed_type")
    if added != _ADDED:
        raise BaseModelError(f"unet addition_embed_type is {added!r}; allowed is {_ADDED!r}")
    names = " and ".join(f"text_encoder{end}" for end in ("", "_2"))
    check_denoiser(config, latent_channels, sum(widths), f"{names} side by side", added_conditions=True)
    sizes = NUM_SIZES * config["addition_time_embed_dim"]
    if config["projection_class_embeddings_input_dim"] != sizes + pooled_width:
        raise BaseModelError(
            f"unet projection_class_embeddings_input_dim is {config['projection_class_embeddings_input_dim']!r}; "
            f"allowed is {sizes + pooled_width}: {pooled_width} of text_encoder_2's projection, {sizes} of the "
            f"{NUM_SIZES} sizes of a picture (a refiner reads others)"
        )


def check_scaling(config: Mapping[str, Any]) -> None:
    """Refuse an autoencoder whose latents have a mean and a deviation for each channel.

    Raises:
        BaseModelError: Names the setting.
    """
    for name in ("latents_mean", "latents_std"):
        if config.get(name) is not None:
            raise BaseModelError(f"vae {name} is {config[name]!r}; allowed is none: one scaling_factor for all latents")


def check_lengths(readers: Sequence[Reader]) -> None:
    """Refuse tokenizers of different lengths: features of all text encoders lie side by side.

    Raises:
        BaseModelError: Names them.
    """
    first, second = readers
    if first.length != second.length:
        raise BaseModelError(
            f"{second.tokenizer_component} gives {second.length} tokens; allowed are the {first.length} of "
            f"{first.tokenizer_component}, whose features lie beside"
        )


def try_networks(pipeline: Any, readers: Sequence[Reader]) -> None:  # noqa: ANN401  (pipelines share no typed parent)
    """Call the networks whose configurations are unusual, without numbers.

    Args:
        pipeline: The pipeline.
        readers: Its text encoders with their tokenizers.

    Raises:
        BaseModelError: If one of them raises, or returns another shape than is needed; names it.
    """
    unet, config = pipeline.unet, pipeline.unet.config
    for reader in readers:
        try_text_encoder(
            reader, USUAL_TEXT, lambda network, ids: network(ids, output_hidden_states=True).hidden_states[-2]
        )
    side = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
    latents = torch.empty(2, config.in_channels, side, side, device="meta", dtype=unet.dtype)
    if is_unusual(config, own_settings(unet), _USUAL_UNET):
        pooled = pipeline.text_encoder_2.config.projection_dim
        shapes = ((2, readers[0].length, config.cross_attention_dim), (2, pooled), (2, NUM_SIZES))
        features, pooled, sizes = (torch.empty(*shape, device="meta", dtype=unet.dtype) for shape in shapes)
        guidance = config.time_cond_proj_dim
        distilled = None if guidance is None else torch.empty(2, guidance, device="meta", dtype=unet.dtype)
        try_network(
            "unet",
            unet,
            config,
            lambda unet, latents, time, features, pooled, sizes, distilled: (
                unet(
                    latents,
                    time,
                    features,
                    timestep_cond=distilled,
                    added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
                ).sample
            ),
            (latents, torch.empty((), device="meta"), features, pooled, sizes, distilled),
            tuple(latents.shape),
        )
    pixels = torch.empty(2, 3, *(pipeline.vae_scale_factor * side for _ in range(2)), device="meta")
    try_autoencoder(pipeline.vae, pixels, latents, USUAL_AUTOENCODER)
