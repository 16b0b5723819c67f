"""Options that training on a card needs: parts computed again, several batches a step."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.errors import ConfigurationError
from orthoplex.models import gradient_checkpointing
from orthoplex.training import train
from orthoplex.training.checkpoint import load_checkpoint  # noqa: F401  (the room's own)


def trained(base, dataset, config, output, **options):
    *_, last = train(base, dataset, config, output=output, **options)
    return load_file(last.output)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    "values",
    [
        {"text_encoder": True},
        {"token_vectors": "layer-wise", "erasure_form": "prediction"},
        {"token_vectors": "keys-and-values", "prior_weight": 0.5},
        {"mixed_precision": "bf16"},
        {"layers": "none", "erasure": 0.0},
    ],
)
def test_parts_computed_again_train_the_same_concept(base, dataset, config, tmp_path, monkeypatch, values):
    config = replace(config, steps=2, **values)
    plain = trained(base, dataset, config, tmp_path / "a.safetensors")
    calls = []
    original = gradient_checkpointing.checkpoint
    monkeypatch.setattr(gradient_checkpointing, "checkpoint", lambda *a, **k: calls.append(1) or original(*a, **k))
    again = trained(base, dataset, replace(config, gradient_checkpointing=True), tmp_path / "b.safetensors")
    assert calls
    assert_equal(plain, again)
    assert not any(module.training for network in base.family.components().values() for module in network.modules())
