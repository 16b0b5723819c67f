"""Options of training that do not go together are refused, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orthoplex.adapters import METHODS
from orthoplex.concepts.tokens import learnings
from orthoplex.errors import ConfigurationError
from orthoplex.training.presets import preset_of

if TYPE_CHECKING:
    from orthoplex.training.config import TrainingConfig


def check_together(config: TrainingConfig) -> None:
    """Refuse options that leave nothing to learn, or that contradict each other.

    Args:
        config: All knobs, each of which is allowed alone.

    Raises:
        ConfigurationError: Names the options, their values, and what was allowed.
    """
    preset_of(config.preset)
    _check_tokens(config)
    _check_stages(config)
    _check_used(config)
    if config.prior_weight > 0 and config.prior_pictures == 0:
        raise ConfigurationError(
            f"prior_weight is {config.prior_weight} and prior_pictures is 0; prior preservation needs prior_pictures "
            "from 1"
        )
    if config.prior_weight > 0 and config.buckets:
        raise ConfigurationError(
            f"prior_weight is {config.prior_weight} and buckets is true, and prior pictures are square; allowed is "
            "prior_weight 0, or buckets false"
        )


def _check_used(config: TrainingConfig) -> None:
    """Refuse a rate that nothing would learn at."""
    if config.text_encoder_learning_rate is not None and not config.text_encoder:
        raise ConfigurationError(
            f"text_encoder_learning_rate is {config.text_encoder_learning_rate} and text_encoder is false; allowed is "
            "text_encoder true"
        )


def _check_tokens(config: TrainingConfig) -> None:
    """Refuse options that leave nothing to learn, or that ask for what only learning tokens or weights can do."""
    every, prefix = learnings(), f"token_vectors is {config.token_vectors!r}"
    if config.token_vectors not in every:
        raise ConfigurationError(f"{prefix}; allowed are {', '.join(map(repr, every))}")
    if config.token_vectors != "shared" and config.reads_tokens:
        raise ConfigurationError(
            f"{prefix} and method is {config.method!r}, whose directions follow learned vectors that all layers "
            "share; allowed is 'shared'"
        )
    if config.token_moves == "keys and values" and config.token_norm_limit is not None:
        raise ConfigurationError(
            f"token_norm_limit is {config.token_norm_limit} and {prefix}, with which token vectors do not learn; "
            "allowed is none"
        )
    starts = every[config.token_vectors].starts
    if starts and config.token_start not in starts:
        raise ConfigurationError(
            f"token_start is {config.token_start!r} and {prefix}, which locks keys to the class word's; allowed is "
            f"{', '.join(map(repr, starts))}"
        )
    if config.token_moves == "nothing" and (config.layers == "none" or config.token_steps):
        key, value = ("layers", config.layers) if config.layers == "none" else ("token_steps", config.token_steps)
        allowed = ", ".join(repr(name) for name, learning in every.items() if learning.moves != "nothing")
        raise ConfigurationError(f"{prefix} and {key} is {value!r}; allowed are {allowed}, which learn")
    if config.layers != "none":
        return
    allowed = {"text_encoder": "false", "token_steps": "none", "erasure": "0", "prior_weight": "0"}
    for key, nothing in allowed.items():
        if getattr(config, key) and not (key == "erasure" and config.solves_erasure):  # that finds nothing to do
            raise ConfigurationError(
                f"{key} is {getattr(config, key)!r} and layers is 'none', with which token vectors learn alone, in "
                f"all steps; allowed is {nothing}"
            )


def _check_stages(config: TrainingConfig) -> None:
    if config.reads_tokens and (config.layers != "cross-attention-kv" or config.text_encoder):
        raise ConfigurationError(
            f"method is {config.method!r} with layers {config.layers!r} and text_encoder {config.text_encoder}; "
            "allowed are 'cross-attention-kv' and false: its directions are what these layers see of the text"
        )
    if config.layers == "none":
        _check_erasure_steps(config)
        return
    lowest = 1 if config.reads_tokens else 0
    if config.steps <= lowest:
        raise ConfigurationError(f"steps is {config.steps}; method {config.method!r} needs {lowest + 1} or more")
    if not lowest <= config.first_steps < config.steps:
        raise ConfigurationError(
            f"token_steps is {config.first_steps} of {config.steps} steps; method {config.method!r} allows {lowest} to "
            f"{config.steps - 1}; with layers 'none' only token vectors learn"
        )
    _check_erasure_steps(config)
    if config.reads_tokens and config.duals > config.num_vectors:
        raise ConfigurationError(f"duals is {config.duals}; allowed are 1 to {config.num_vectors}, num_vectors")


def _check_erasure_steps(config: TrainingConfig) -> None:
    """Refuse erasure steps where no direction is frozen, or where directions depend on what is learned."""
    if not config.erasure_steps:
        return
    prefix = f"erasure_steps is {config.erasure_steps} and"
    if not config.solves_erasure:
        raise ConfigurationError(f"{prefix} erasure is {config.erasure} in form {config.erasure_form!r}; allowed is 0")
    if not METHODS[config.method].has_frozen_directions:
        allowed = ", ".join(repr(name) for name, method in METHODS.items() if method.has_frozen_directions)
        raise ConfigurationError(f"{prefix} method is {config.method!r}; allowed are methods {allowed}, or 0")
    if not config.keys_values_alone:
        raise ConfigurationError(
            f"{prefix} layers is {config.layers!r} with text_encoder {str(config.text_encoder).lower()}; allowed are "
            "'cross-attention-kv' and false, or 0"
        )
    if config.first_steps + config.erasure_steps >= config.steps:
        raise ConfigurationError(
            f"{prefix} steps is {config.steps}, {config.first_steps} of them for tokens alone; allowed are 0 to "
            f"{config.steps - 1 - config.first_steps}"
        )
