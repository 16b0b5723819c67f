"""The check of a loaded Stable Diffusion: what its U-Net reads and predicts, and which settings are usual."""

from __future__ import annotations

from collections.abc import Mapping
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
from orthoplex.models.words.words import Reader

_SIZES = {"sample_size", "block_out_channels", "layers_per_block", "norm_num_groups", "norm_eps"}
_BLOCKS = {"down_block_types", "up_block_types", "in_channels", "out_channels"}
USUAL_UNET = _SIZES | _BLOCKS | {
    "attention_head_dim",
    "cross_attention_dim",
    "use_linear_projection",
    "upcast_attention",
    "time_embedding_dim",
    "time_cond_proj_dim",
}  # fmt: skip
USUAL_AUTOENCODER = _SIZES | _BLOCKS | {"latent_channels", "scaling_factor", "shift_factor", "force_upcast"} | {
    "mid_block_add_attention",
    "use_quant_conv",
    "use_post_quant_conv",
}  # fmt: skip
USUAL_TEXT = {
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "initializer_range"),
    *("initializer_factor", "model_type", "architectures"),
    *("transformers_version", "dtype", "torch_dtype"),
}
"""Settings of each network that may differ from its class's own without a trial: shapes of weights hold them."""
_ADDED_CONDITIONS = "addition_embed_type"
_FOREIGN_INPUTS = {
    "class_embed_type": "labels of classes",
    "num_class_embeds": "labels of classes",
    _ADDED_CONDITIONS: "added conditions, as Stable Diffusion XL has them",
}


def check_unet(config: Mapping[str, Any], latent_channels: int, text_width: int) -> None:
    """Refuse a U-Net that reads or predicts other things than latents of the autoencoder and features of the text.

    Args:
        config: Its configuration.
        latent_channels: Channels of the autoencoder's latents.
        text_width: Width of the text encoder's features.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    check_denoiser(config, latent_channels, text_width, "the text_encoder")


def check_denoiser(
    config: Mapping[str, Any], latent_channels: int, text_width: int, readers: str, *, added_conditions: bool = False
) -> None:
    """``check_unet``, also for U-Nets that read added conditions.

    Args:
        config: Its configuration.
        latent_channels: Channels of the autoencoder's latents.
        text_width: Width of the text's features.
        readers: What reads the text, for errors.
        added_conditions: True allows added conditions.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    _check_size("unet sample_size", config["sample_size"])
    for name, what in _FOREIGN_INPUTS.items():
        if config.get(name) is not None and not (added_conditions and name == _ADDED_CONDITIONS):
            raise BaseModelError(f"unet needs {what} ({name} is {config[name]!r}); allowed is none")
    channels = config["in_channels"]
    if channels != latent_channels:
        kind = ", as for inpainting or depth" if channels > latent_channels else ""
        raise BaseModelError(
            f"unet reads {channels} channels{kind}; allowed are the {latent_channels} of the vae's latents"
        )
    if config["out_channels"] != channels:
        kind = ", as with a learned variance" if config["out_channels"] == 2 * channels else ""
        raise BaseModelError(f"unet predicts {config['out_channels']} channels{kind}; allowed are {channels}")
    kind, width = config.get("encoder_hid_dim_type"), config["cross_attention_dim"]
    if kind not in (None, "text_proj"):
        raise BaseModelError(f"unet needs conditions of pictures (encoder_hid_dim_type is {kind!r}); allowed is text")
    if isinstance(width, bool) or not isinstance(width, int):
        raise BaseModelError(f"unet cross_attention_dim is {width!r}; allowed is one number")
    width = config.get("encoder_hid_dim") or width
    if width != text_width:
        raise BaseModelError(f"unet reads text of width {width}; allowed is that of {readers}, {text_width}")


def try_networks(pipeline: Any) -> None:  # noqa: ANN401  (pipelines share no typed parent)
    """Call the networks whose configurations are unusual, without numbers.

    Raises:
        BaseModelError: If one of them raises, or returns another shape than is needed; names it.
    """
    unet, reader = pipeline.unet, Reader(pipeline)
    try_text_encoder(reader, USUAL_TEXT)
    config = unet.config
    side = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
    latents = torch.empty(2, config.in_channels, side, side, device="meta", dtype=unet.dtype)
    if is_unusual(config, own_settings(unet), USUAL_UNET):
        length, width = reader.tokenizer.model_max_length, reader.network.config.hidden_size
        features = torch.empty(2, length, width, device="meta", dtype=unet.dtype)
        guidance = config.time_cond_proj_dim
        extras = None if guidance is None else torch.empty(2, guidance, device="meta", dtype=unet.dtype)
        try_network(
            "unet",
            unet,
            config,
            lambda unet, latents, time, features, extras: unet(latents, time, features, timestep_cond=extras).sample,
            (latents, torch.empty((), device="meta"), features, extras),
            tuple(latents.shape),
        )
    pixels = torch.empty(2, 3, *(pipeline.vae_scale_factor * side for _ in range(2)), device="meta")
    try_autoencoder(pipeline.vae, pixels, latents, USUAL_AUTOENCODER)


def _check_size(what: str, size: object) -> None:
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int or sides[0] < 1:
        raise BaseModelError(f"{what} is {size!r}; allowed is a number from 1, or a pair of the same number")
