"""The check of loaded pipelines with an autoencoder and a discrete scheduler, whatever their denoiser.

Configurations and shapes say whether the parts belong together. Networks with unusual configurations are tried besides,
on the device ``meta``, where nothing is computed; outcomes are remembered.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeGuard, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.families.autoencoders import encoded
from orthoplex.models.inference_steps import check_usable
from orthoplex.models.outcomes import Outcomes, settings_key
from orthoplex.models.schedules import check_schedule
from orthoplex.models.weights.quantised import is_quantised
from orthoplex.models.words.words import Reader

_NUMBERS = {"dropout", "attention_dropout"}
"""Settings whose value decides nothing here, where nothing is dropped."""
_TRIALS: Outcomes[tuple[int, ...]] = Outcomes(64)
"""The shapes that networks of a class and configuration give."""


def check_autoencoder(config: Mapping[str, Any]) -> None:
    """Refuse an autoencoder whose latents cannot be scaled, or which is not for pictures of three channels.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    for name in ("in_channels", "out_channels"):
        if config[name] != 3:
            raise BaseModelError(f"vae {name} is {config[name]!r}; allowed is 3, for red, green and blue")
    factor, shift = config.get("scaling_factor"), config.get("shift_factor")
    if not is_number(factor) or factor == 0:
        raise BaseModelError(f"vae scaling_factor is {factor!r}; allowed is a number other than 0")
    if shift is not None and not is_number(shift):
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
    """Refuse a scheduler that cannot denoise what a denoiser of discrete timesteps predicts.

    Raises:
        BaseModelError: Says why.
    """
    check_schedule(scheduler)
    if scheduler.config.get("use_flow_sigmas"):
        raise BaseModelError("scheduler use_flow_sigmas is True; allowed is False, as the denoiser predicts no flow")
    variance = scheduler.config.get("variance_type")
    if isinstance(variance, str) and variance.startswith("learned"):
        raise BaseModelError(
            f"scheduler variance_type is {variance!r}; allowed are fixed ones: the denoiser learned none"
        )
    check_usable(scheduler)


def try_text_encoder(
    reader: Reader, usual: Collection[str], use: Callable[..., Tensor] = lambda network, ids: network(ids)[0]
) -> None:
    """Call a text encoder whose configuration is unusual, without numbers.

    Args:
        reader: The encoder with its tokenizer.
        usual: Settings that may differ from the class's own without a trial.
        use: Takes the network and token ids, and returns the states that the denoiser reads.

    Raises:
        BaseModelError: If it raises, or returns another shape than ``(1, length, width)``.
    """
    network, length = reader.network, reader.tokenizer.model_max_length
    own = type(network.config)().to_dict()
    settings = network.config.to_diff_dict()
    if is_unusual(settings, own, usual):
        ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
        try_network(
            reader.component,
            network,
            settings,
            use,
            (ids,),
            (1, length, network.config.hidden_size),
        )


def try_autoencoder(autoencoder: Any, pixels: Tensor, latents: Tensor, usual: Collection[str]) -> None:  # noqa: ANN401
    """Let an autoencoder whose configuration is unusual encode and decode, without numbers.

    Args:
        autoencoder: Of diffusers.
        pixels: ``(n, 3, height, width)`` on the device ``meta``.
        latents: Their latents, ``(n, c, h, w)`` on the device ``meta``.
        usual: Settings that may differ from the class's own without a trial.

    Raises:
        BaseModelError: If it raises, or returns another shape.
    """
    config = autoencoder.config
    if not (is_unusual(config, own_settings(autoencoder), usual) or _is_uneven(config)):
        return
    pixels, latents = pixels.to(autoencoder.dtype), latents.to(autoencoder.dtype)
    try_network("vae", autoencoder, config, encoded, (pixels,), tuple(latents.shape))
    try_network(
        "vae",
        autoencoder,
        config,
        lambda network, latents: network.decode(latents).sample,
        (latents,),
        tuple(pixels.shape),
    )


def try_network(
    component: str,
    network: nn.Module,
    settings: Mapping[str, Any],
    use: Callable[..., Tensor],
    inputs: tuple[Tensor | None, ...],
    shape: tuple[int, ...],
) -> None:
    """Use a network without numbers, once for a class, its settings and its inputs.

    Args:
        component: Its name.
        network: Of any device.
        settings: Its configuration.
        use: Calls it, or a method of it; takes the network and the inputs.
        inputs: On the device ``meta``, or None.
        shape: The shape that is needed.

    Raises:
        BaseModelError: If it raises, or gives another shape; names the component.
    """
    if is_quantised(network):
        return  # its libraries have no numbers on the device meta
    shapes = [None if values is None else (values.dtype, tuple(values.shape)) for values in inputs]
    key = (type(network), settings_key(settings), str(shapes), shape)
    try:
        got = _TRIALS.of(key, partial(_shape_of, network, use, inputs))
    except Exception as error:  # noqa: BLE001  (networks raise anything)
        raise BaseModelError(f"{component} cannot be used: {summary_of(error)}") from error
    if got != shape:
        raise BaseModelError(f"{component} gives a tensor of shape {got}; allowed is {shape}")


@torch.no_grad()
def _shape_of(network: nn.Module, use: Callable[..., Tensor], inputs: tuple[Tensor | None, ...]) -> tuple[int, ...]:
    user = _User(network, use)
    tensors = {
        name: values.to("meta")
        for values_of in (user.named_parameters(), user.named_buffers())
        for name, values in values_of
    }
    return tuple(functional_call(user, tensors, inputs).shape)


@final
class _User(nn.Module):
    """A network and how it is used, as the one network that ``functional_call`` takes."""

    def __init__(self, network: nn.Module, use: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.use = network, use

    def forward(self, *inputs: Tensor | None) -> Tensor:
        return self.use(self.network, *inputs)


def own_settings(network: nn.Module) -> dict[str, Any]:
    """Return the settings that a network of diffusers has where none are given."""
    return {name: item.default for name, item in inspect.signature(type(network).__init__).parameters.items()}


def is_unusual(settings: Mapping[str, Any], own: Mapping[str, Any], usual: Collection[str]) -> bool:
    """Return True if a setting differs from the class's own, unless it is a usual one with an ordinary value.

    Args:
        settings: A network's configuration.
        own: That of its class.
        usual: Settings that may differ.
    """
    return any(
        not _is_same(value, own.get(name, inspect.Parameter.empty))
        and not _decides_nothing(name, value)
        and not (name in usual and _is_ordinary(value, own.get(name)))
        for name, value in settings.items()
        if not name.startswith("_") and name != "quantization_config"  # how numbers are stored decides no shape
    )


def is_number(value: object) -> TypeGuard[float]:
    """Return True for a finite number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_same(value: object, own: object) -> bool:
    if isinstance(value, list | tuple) and isinstance(own, list | tuple):
        return len(value) == len(own) and all(map(_is_same, value, own))
    return type(value) is type(own) and value == own


def _decides_nothing(name: str, value: object) -> bool:
    """Return True for numbers of tokens, and for shares that only a training drops."""
    return (name.endswith("_token_id") and type(value) is int) or (name in _NUMBERS and is_number(value))


def _is_uneven(config: Mapping[str, Any]) -> bool:
    """Return True if an autoencoder names other numbers of blocks than of their widths."""
    blocks = (config[name] for name in ("down_block_types", "up_block_types", "block_out_channels") if name in config)
    return len({len(block) if isinstance(block, list | tuple) else 0 for block in blocks}) > 1


def _is_ordinary(value: object, own: object) -> bool:
    """Return True for texts, numbers above 0, and lists of them; truth values and fractions in the place of such.

    A fraction has a number in its place alone, a whole number no text.
    """
    if isinstance(own, float) and not is_number(value):
        return False
    if isinstance(own, int) and not isinstance(own, bool) and isinstance(value, str):
        return False
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(isinstance(item, str) or _is_ordinary(item, 0) for item in value)
    if isinstance(value, bool | float) and type(value) is not type(own):
        return False
    return isinstance(value, str | bool) or (is_number(value) and value > 0)
