"""The check of loaded pipelines of flow matching: whether their networks and tokenizers belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.families.latent_check import is_number
from orthoplex.models.words.prompt_forms import Templated, text_mask
from orthoplex.models.words.words import Reader


def check_flow_reader(reader: Reader) -> None:
    """Refuse a tokenizer whose numbers its text encoder cannot read, or which makes no prompt of its form.

    Raises:
        BaseModelError: Says what does not fit.
    """
    name, tokenizer = reader.tokenizer_component, reader.tokenizer
    if tokenizer.pad_token_id is None:
        raise BaseModelError(f"{name} has no pad_token; a prompt needs filling")
    if reader.length <= reader.num_marks:
        raise BaseModelError(
            f"{name} model_max_length is {tokenizer.model_max_length!r}; allowed is more than {reader.num_marks}, the "
            "tokens around a prompt"
        )
    largest, rows = max(tokenizer.get_vocab().values()), len(reader.table)
    if largest >= rows:
        raise BaseModelError(
            f"{name} numbers its tokens up to {largest}; allowed is {rows - 1}, as {reader.component} has {rows} "
            "embeddings"
        )
    try:
        words, shape = reader.form.num_words(tokenizer, "a"), tuple(reader.ids(["a"]).shape)
    except Exception as error:  # noqa: BLE001  (tokenizers raise anything)
        raise BaseModelError(f"{name} cannot read a prompt: {summary_of(error)}") from error
    if words < 1 or shape != (1, reader.length):
        raise BaseModelError(
            f"{name} makes {words} tokens of 'a', and ids of shape {shape}; allowed are tokens, and "
            f"(1, {reader.length})"
        )
    if (
        isinstance(reader.form, Templated)
        and int(text_mask(tokenizer, reader.ids(["a"])).sum()) < reader.num_marks + words
    ):
        raise BaseModelError(
            f"{name} pad_token is {tokenizer.pad_token!r}, which its chat template has; allowed is a token that no "
            "text has"
        )


def check_chat(tokenizer_component: str, make: Callable[[], Reader]) -> None:
    """Refuse a tokenizer whose chat template makes no prompt.

    Args:
        tokenizer_component: The tokenizer's component of the pipeline.
        make: Returns the text encoder with the tokenizer, whose form is ``Templated.of_chat``.

    Raises:
        BaseModelError: Says what does not fit.
    """
    try:
        reader = make()
    except Exception as error:  # noqa: BLE001  (templates raise anything)
        raise BaseModelError(
            f"{tokenizer_component} makes no chat of a prompt, as the base needs: {summary_of(error)}"
        ) from error
    check_flow_reader(reader)


def check_template(reader: Reader, form: Templated, behind: int) -> None:
    """Refuse a tokenizer that makes another number of tokens of a template than the pipeline counts on.

    Args:
        reader: The text encoder with the tokenizer.
        form: The form of its prompts; it drops all positions in front of a prompt.
        behind: The number of tokens behind a prompt.

    Raises:
        BaseModelError: Names the tokenizer, the numbers, and what is allowed.
    """
    texts, allowed = (form.before, form.behind), [form.num_dropped, behind]
    made = [len(reader.words(text)) for text in texts]
    if made != allowed:
        raise BaseModelError(
            f"{reader.tokenizer_component} makes {made[0]} and {made[1]} tokens of the template in front of a prompt "
            f"and behind it; allowed are {allowed[0]} and {allowed[1]}"
        )


def check_frames(config: Mapping[str, Any]) -> None:
    """Refuse an autoencoder of videos that is not for pictures of three channels, or whose latents cannot be scaled.

    Args:
        config: The configuration of an ``AutoencoderKLQwenImage``.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    if config["input_channels"] != 3:
        raise BaseModelError(
            f"vae input_channels is {config['input_channels']!r}; allowed is 3, for red, green and blue"
        )
    for setting in ("latents_mean", "latents_std"):
        numbers, count = config[setting], config["z_dim"]
        if not isinstance(numbers, list | tuple) or [is_number(number) for number in numbers] != [True] * count:
            raise BaseModelError(f"vae {setting} is {numbers!r}; allowed are {count} numbers, as z_dim is")
    if not all(number > 0 for number in config["latents_std"]):
        raise BaseModelError(f"vae latents_std is {config['latents_std']!r}; allowed are numbers above 0")
    if len(config["temperal_downsample"]) != len(config["dim_mult"]) - 1:
        raise BaseModelError(
            f"vae temperal_downsample is {config['temperal_downsample']!r}; allowed are {len(config['dim_mult']) - 1} "
            "values, one less than of dim_mult"
        )
    if config.get("sample_size") is not None:
        check_side(config, 2 ** len(config["temperal_downsample"]))


def check_side(config: Mapping[str, Any], step: int) -> None:
    """Refuse an autoencoder that names a size of picture which has no latents.

    Args:
        config: Its configuration.
        step: The pixels of the smallest part of a picture.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    side = config["sample_size"]
    if type(side) is not int or side < 1 or side % step:
        raise BaseModelError(
            f"vae sample_size is {side!r}; allowed are multiples of {step}, the pixels of a picture's smallest part"
        )


def check_flag(name: str, value: object) -> None:
    """Refuse a setting that is neither true nor false.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    if type(value) is not bool:
        raise BaseModelError(f"{name} is {value!r}; allowed are true and false")


def check_sizes(sizes: Mapping[str, tuple[int, str, int]]) -> None:
    """Refuse a network that reads another size than the network before it gives.

    Args:
        sizes: Setting, as ``transformer in_channels``, to its value, where the size comes from in words, and the size.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    for setting, (value, source, size) in sizes.items():
        if value != size:
            raise BaseModelError(f"{setting} is {value!r}; allowed is {size}, of {source}")
