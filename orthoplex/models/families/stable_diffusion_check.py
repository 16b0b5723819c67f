"""The check of a loaded Stable Diffusion: its parts belong together, and the package can work with each of them.

Configurations and shapes say so. Networks with unusual configurations are tried besides, on the device ``meta``, where
nothing is computed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.families.latent import encoded
from orthoplex.models.inference_steps import check_usable
from orthoplex.models.schedules import check_schedule
from orthoplex.models.words.words import Reader

_SIZES = {"sample_size", "block_out_channels", "layers_per_block", "norm_num_groups", "norm_eps"}
_BLOCKS = {"down_block_types", "up_block_types", "in_channels", "out_channels"}
_USUAL_UNET = _SIZES | _BLOCKS | {
    "attention_head_dim",
    "cross_attention_dim",
    "use_linear_projection",
    "upcast_attention",
}  # fmt: skip
_USUAL_AUTOENCODER = _SIZES | _BLOCKS | {"latent_channels", "scaling_factor", "shift_factor", "force_upcast"}
_USUAL_TEXT = {
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "attention_dropout", "dropout", "initializer_range"),
    *("initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id", "model_type", "architectures"),
    *("transformers_version", "dtype", "torch_dtype"),
}
"""Settings of each network that may differ from its class's own without a trial: shapes of weights hold them."""
_FOREIGN_INPUTS = {
    "class_embed_type": "labels of classes",
    "num_class_embeds": "labels of classes",
    "addition_embed_type": "added conditions, as Stable Diffusion XL has them",
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
    _check_size("unet sample_size", config["sample_size"])
    for name, what in _FOREIGN_INPUTS.items():
        if config.get(name) is not None:
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
        raise BaseModelError(f"unet reads text of width {width}; allowed is that of the text_encoder, {text_width}")


def check_autoencoder(config: Mapping[str, Any]) -> None:
    """Refuse an autoencoder whose latents cannot be scaled, or which is not for pictures of three channels.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    for name in ("in_channels", "out_channels"):
        if config[name] != 3:
            raise BaseModelError(f"vae {name} is {config[name]!r}; allowed is 3, for red, green and blue")
    factor, shift = config.get("scaling_factor"), config.get("shift_factor")
    if not _is_number(factor) or factor == 0:
        raise BaseModelError(f"vae scaling_factor is {factor!r}; allowed is a number other than 0")
    if shift is not None and not _is_number(shift):
        raise BaseModelError(f"vae shift_factor is {shift!r}; allowed is a number")


def check_reader(reader: Reader) -> None:
    """Refuse a tokenizer whose numbers its text encoder cannot read.

    Raises:
        BaseModelError: Says what does not fit.
    """
    name, tokenizer = reader.tokenizer_component, reader.tokenizer
    length, limit = tokenizer.model_max_length, reader.network.config.max_position_embeddings
    if type(length) is not int or length <= reader.num_marks:
        raise BaseModelError(f"{name} model_max_length is {length!r}; allowed are {reader.num_marks + 1} to {limit}")
    if length > limit:
        raise BaseModelError(
            f"{name} gives up to {length} tokens, allowed are the {limit} that the encoder reads; is the folder "
            f"'{name}' whole?"
        )
    lacking = [mark for mark in ("bos_token", "eos_token", "pad_token") if getattr(tokenizer, f"{mark}_id") is None]
    if lacking:
        raise BaseModelError(f"{name} has no {', '.join(lacking)}; a prompt needs begin, end and filling")
    largest, rows = max(tokenizer.get_vocab().values()), len(reader.table)
    if largest >= rows:
        raise BaseModelError(
            f"{name} numbers its tokens up to {largest}; allowed is {rows - 1}, as {reader.component} has {rows} "
            "embeddings"
        )
    try:
        ids = tokenizer("a", verbose=False).input_ids  # filling and length would stay in what is saved
    except Exception as error:  # noqa: BLE001  (tokenizers raise anything)
        raise BaseModelError(f"{name} cannot read a prompt: {summary_of(error)}") from error
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    if len(ids) <= reader.num_marks or [ids[0], ids[-1]] != ends:
        raise BaseModelError(f"{name} makes {ids} of 'a'; allowed are {ends[0]}, words, {ends[1]}")


def check_scheduler(scheduler: Any) -> None:  # noqa: ANN401  (diffusers' schedulers share no typed parent)
    """Refuse a scheduler that cannot denoise what a U-Net of discrete timesteps predicts.

    Raises:
        BaseModelError: Says why.
    """
    check_schedule(scheduler)
    if scheduler.config.get("use_flow_sigmas"):
        raise BaseModelError("scheduler use_flow_sigmas is True; allowed is False, as the unet predicts no flow")
    check_usable(scheduler)


def try_networks(pipeline: Any) -> None:  # noqa: ANN401  (pipelines share no typed parent)
    """Call the networks whose configurations are unusual, without numbers.

    Raises:
        BaseModelError: If one of them raises, or returns another shape than is needed; names it.
    """
    encoder, unet, autoencoder = pipeline.text_encoder, pipeline.unet, pipeline.vae
    length, width = pipeline.tokenizer.model_max_length, encoder.config.hidden_size
    own = type(encoder.config)().to_dict()
    changed = encoder.config.to_diff_dict()
    if any(name not in _USUAL_TEXT or not _is_ordinary(value, own.get(name)) for name, value in changed.items()):
        ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
        _expect("text_encoder", lambda: _without_numbers(encoder, ids)[0], (1, length, width))
    side = _first_of(unet.config.sample_size)
    latents = torch.empty(2, unet.config.in_channels, side, side, device="meta", dtype=unet.dtype)
    if _differing(unet, _USUAL_UNET):
        features = torch.empty(2, length, width, device="meta", dtype=unet.dtype)
        time = torch.empty((), device="meta")
        guidance = unet.config.time_cond_proj_dim
        extras = None if guidance is None else torch.empty(2, guidance, device="meta", dtype=unet.dtype)
        _expect(
            "unet",
            lambda: _without_numbers(unet, latents, time, features, timestep_cond=extras).sample,
            tuple(latents.shape),
        )
    if _differing(autoencoder, _USUAL_AUTOENCODER) or _is_uneven(autoencoder.config):
        pixels = torch.empty(
            2, 3, *(pipeline.vae_scale_factor * side for _ in range(2)), device="meta", dtype=autoencoder.dtype
        )
        _expect("vae", lambda: encoded(_Caller(autoencoder), pixels), tuple(latents.shape))
        _expect("vae", lambda: _Caller(autoencoder).decode(latents.to(autoencoder.dtype)).sample, tuple(pixels.shape))


class _Caller:
    """The two methods of an autoencoder, called without numbers."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def encode(self, pixels: Tensor) -> Any:  # noqa: ANN401
        return _without_numbers(_Method(self._network, "encode"), pixels)

    def decode(self, latents: Tensor) -> Any:  # noqa: ANN401
        return _without_numbers(_Method(self._network, "decode"), latents)


class _Method(nn.Module):
    """A method of a network, as the network that ``functional_call`` takes."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, values: Tensor) -> Any:  # noqa: ANN401
        return getattr(self.network, self.name)(values)


@torch.no_grad()
def _without_numbers(network: nn.Module, *arguments: object, **options: object) -> Any:  # noqa: ANN401
    tensors = {
        name: values.to("meta")
        for values_of in (network.named_parameters(), network.named_buffers())
        for name, values in values_of
    }
    return functional_call(network, tensors, arguments, options)


def _expect(component: str, call: Callable[[], Tensor], shape: tuple[int, ...]) -> None:
    try:
        got = tuple(call().shape)
    except Exception as error:  # noqa: BLE001  (networks raise anything)
        raise BaseModelError(f"{component} cannot be used: {summary_of(error)}") from error
    if got != shape:
        raise BaseModelError(f"{component} gives a tensor of shape {got}; allowed is {shape}")


def _differing(network: Any, usual: Iterable[str]) -> set[str]:  # noqa: ANN401  (a network of diffusers)
    """The settings of a network that differ from its class's own and are not usual."""
    own = {name: item.default for name, item in inspect.signature(type(network).__init__).parameters.items()}
    return {
        name
        for name, value in network.config.items()
        if not name.startswith("_")
        and not (name in own and type(value) is type(own[name]) and value == own[name])
        and not (name in usual and _is_ordinary(value, own.get(name)))
    }


def _is_uneven(config: Mapping[str, Any]) -> bool:
    """Return True if an autoencoder names other numbers of blocks than of their widths."""
    blocks = (config[name] for name in ("down_block_types", "up_block_types", "block_out_channels") if name in config)
    return len({len(block) if isinstance(block, list | tuple) else 0 for block in blocks}) > 1


def _is_ordinary(value: object, own: object) -> bool:
    """Return True for texts, numbers above 0, and lists of them; truth values and fractions in the place of such.

    A fraction has a number in its place alone, a whole number no text.
    """
    if isinstance(own, float) and not _is_number(value):
        return False
    if isinstance(own, int) and not isinstance(own, bool) and isinstance(value, str):
        return False
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(isinstance(item, str) or _is_ordinary(item, 0) for item in value)
    if isinstance(value, bool | float) and type(value) is not type(own):
        return False
    return isinstance(value, str | bool) or (_is_number(value) and value > 0)


def _check_size(what: str, size: object) -> None:
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int or sides[0] < 1:
        raise BaseModelError(f"{what} is {size!r}; allowed is a number from 1, or a pair of the same number")


def _first_of(size: Any) -> int:  # noqa: ANN401
    return size if isinstance(size, int) else size[0]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
