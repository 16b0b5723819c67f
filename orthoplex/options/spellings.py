"""Options of training as other programs spell them: diffusers' scripts and kohya's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from orthoplex.errors import ConfigurationError


@final
@dataclass(frozen=True)
class Spelling:
    """What an option of another program is called here.

    Attributes:
        key: The training option; empty where there is none.
        values: Values that are spelled in another form here; others stay as they are.
        flag: The value that the option stands for when it is given without one; None if it needs a value.
        instead: What to do instead, where there is no such option; empty for what is always so.
    """

    key: str = ""
    values: Mapping[Any, Any] = field(default_factory=dict[Any, Any])
    flag: Any = None
    instead: str = ""


SPELLINGS: Final[Mapping[str, Spelling]] = {
    "train_batch_size": Spelling("batch_size"),
    "max_train_steps": Spelling("steps"),
    "network_dim": Spelling("rank"),
    "lora_alpha": Spelling("alpha"),
    "network_alpha": Spelling("alpha"),
    "snr_gamma": Spelling("min_snr_gamma"),
    "with_prior_preservation": Spelling("prior_weight", {True: 1.0, False: 0.0}, flag=True),
    "prior_loss_weight": Spelling("prior_weight"),
    "num_class_images": Spelling("prior_pictures"),
    "random_flip": Spelling("flip", flag=True),
    "max_grad_norm": Spelling("gradient_clip"),
    "lr_scheduler": Spelling("schedule", {"constant_with_warmup": "constant"}),
    "lr_warmup_steps": Spelling("warmup"),
    "validation_prompt": Spelling("sample_prompts"),
    "checkpointing_steps": Spelling("checkpoint_every"),
    "train_text_encoder": Spelling("text_encoder", flag=True),
    "text_encoder_lr": Spelling("text_encoder_learning_rate"),
    "adam_weight_decay": Spelling("weight_decay"),
    "cache_latents": Spelling(flag=True),  # they always are
    "center_crop": Spelling(flag=True),  # pictures always are
    "enable_bucket": Spelling("buckets", flag=True),
    "instance_prompt": Spelling(instead="--name and --class-word say what the pictures show"),
    "class_data_dir": Spelling(instead="the folder of class pictures is an argument of its own, --class-data"),
    "reg_data_dir": Spelling(instead="the folder of class pictures is an argument of its own, --class-data"),
    "class_prompt": Spelling(instead="--class-word says the word, and prompts about it are made"),
    "validation_epochs": Spelling(instead="sample_every counts steps"),
    "num_validation_images": Spelling(instead="every one of sample_prompts has one picture"),
    "output_dir": Spelling(instead="--output names the concept file"),
    "use_8bit_adam": Spelling("optimizer", {True: "adamw-8bit", False: "adamw"}, flag=True),
    "allow_tf32": Spelling(flag=True, instead="mixed_precision=bf16 is the option for speed"),
    "log_with": Spelling("report_to"),
    "num_train_epochs": Spelling(instead="steps counts optimizer steps"),
}
"""Spelling, with ``_``, to what it is here. Options that are spelled as here need no row."""


def own_name(name: str) -> str:
    """Return what an option in any spelling is called here; one without an equal keeps its name."""
    return SPELLINGS[name].key or name if name in SPELLINGS else name


def in_own_spelling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return training options with the names and values that they have here.

    ``with_prior_preservation`` gives way to ``prior_loss_weight``, whichever comes first; alone, the latter does
    nothing in the scripts that have it, and is refused.

    Args:
        values: Option to value, in any spelling; names that are nobody's stay as they are.

    Raises:
        ConfigurationError: For an option without an equal here (says what to do instead), or two spellings of one.
    """
    own: dict[str, Any] = {}
    givers: dict[str, str] = {}
    if "validation_prompt" in values and "sample_every" not in values:
        raise ConfigurationError(
            f"validation_prompt is {values['validation_prompt']!r} without sample_every; allowed is one beside it, the "
            "number of steps between pictures, or sample_prompts"
        )
    if "prior_loss_weight" in values:
        if values.get("with_prior_preservation") is not True:
            raise ConfigurationError(
                f"prior_loss_weight is {values['prior_loss_weight']!r} without with_prior_preservation; allowed is "
                "prior_weight, which needs nothing beside it"
            )
        values = {name: value for name, value in values.items() if name != "with_prior_preservation"}
    for name, value in values.items():
        spelling = SPELLINGS.get(name)
        if spelling is not None and spelling.instead:
            raise ConfigurationError(f"{name} is {value!r}, an option that training does not have; {spelling.instead}")
        key = name if spelling is None else spelling.key
        if not key:
            _check_always(name, value)
            continue
        if key in givers:
            raise ConfigurationError(f"{givers[key]} and {name} are both given; allowed is one, they are the same")
        givers[key] = name
        own[key] = value if spelling is None else _own_value(key, value, spelling)
    return own


def _own_value(key: str, value: Any, spelling: Spelling) -> Any:  # noqa: ANN401 (any option's value)
    if key == "sample_prompts" and isinstance(value, str):
        return (value,)
    return spelling.values.get(value, value) if isinstance(value, str | bool) else value


def _check_always(name: str, value: object) -> None:
    if value is not True:
        raise ConfigurationError(f"{name} is {value!r}; allowed is true, which training always does")
