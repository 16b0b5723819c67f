"""The options of erasure are those of a training that concern it."""

from dataclasses import fields, replace

import pytest

from orthoplex.activations import ErasureOptions
from orthoplex.errors import ConfigurationError
from orthoplex.training import TrainingConfig


def test_defaults_are_those_of_a_training():
    assert TrainingConfig().erasure_options == ErasureOptions()


def test_a_training_hands_on_every_one():
    changes = {
        "erasure": 2.0,
        "erasure_prompts": 3,
        "seed": 4,
        "batch_size": 5,
        "prior_pictures": 6,
        "prior_inference_steps": 7,
        "guidance_scale": 8.0,
        "mixed_precision": "bf16",
    }
    options, usual = TrainingConfig(**changes).erasure_options, ErasureOptions()
    assert all(getattr(options, item.name) != getattr(usual, item.name) for item in fields(ErasureOptions))
    assert list(changes.values()) == [getattr(options, item.name) for item in fields(ErasureOptions)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1}, "erasure weight is -1"),
        ({"weight": 1e7}, "erasure weight is 10000000"),
        ({"num_prompts": 0}, "erasure num_prompts is 0"),
        ({"batch_size": 0}, "erasure batch_size is 0"),
        ({"mixed_precision": "fp8"}, "erasure mixed_precision is 'fp8'"),
    ],
)
def test_values_outside_their_range_are_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        replace(ErasureOptions(), **changes)
