"""Options that training on a card needs: parts computed again, several batches a step."""

import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from orthoplex.errors import ConfigurationError, MissingExtraError
from orthoplex.models import gradient_checkpointing
from orthoplex.training import train
from orthoplex.training.batches import TrainingData
from orthoplex.training.checkpoint import TrainingState
from orthoplex.training.optimizers import created, set_state, state_tensors


def trained(base, dataset, config, output, **options):
    *_, last = train(base, dataset, config, output=output, **options)
    assert last.output is not None
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


def test_networks_that_cannot_are_refused_by_name():
    with (
        pytest.raises(ConfigurationError, match="gradient_checkpointing is True, and Linear cannot .*allowed is false"),
        gradient_checkpointing.recomputed([nn.Linear(1, 1)]),
    ):
        pass


def test_several_batches_a_step_average_their_gradients(base, dataset, config, tmp_path, monkeypatch):
    config = replace(config, steps=1, erasure=0.0, gradient_accumulation_steps=2, token_vectors="frozen")
    drawn, original, gradients, update = [], TrainingData.batch, [], TrainingState.update

    def spy(state, **options):
        gradients.append(
            {name: part.grad.clone() for name, part in state.parameters().items() if part.grad is not None}
        )
        update(state, **options)

    monkeypatch.setattr(TrainingState, "update", spy)
    monkeypatch.setattr(TrainingData, "batch", lambda *a: drawn.append(a[-1]) or original(*a))
    _, record, *_ = train(base, dataset, config, output=tmp_path / "a.safetensors")
    assert drawn == [0, 1]
    parts = []
    for number in (0, 1):
        monkeypatch.setattr(
            TrainingData, "batch", lambda data, config, step, number=number: original(data, config, number)
        )
        single = replace(config, gradient_accumulation_steps=1)
        _, part, *_ = train(base, dataset, single, output=tmp_path / f"{number}.safetensors")
        parts.append(part.loss)
    assert record.loss == sum(parts) / 2
    together, *single = gradients
    assert len(single) == 2 and any(value.any() for value in together.values())
    for name, value in together.items():
        first, second = (part[name] for part in single)
        torch.testing.assert_close(value, (first + second) / 2, rtol=1e-4, atol=1e-7)
    assert any(not torch.equal(single[0][name], single[1][name]) for name in together)


def test_a_resumed_training_of_several_batches_is_the_unbroken_one(base, dataset, config, tmp_path):
    config = replace(config, steps=3, gradient_accumulation_steps=2)
    whole = trained(base, dataset, config, tmp_path / "a.safetensors")
    output = tmp_path / "b.safetensors"
    with closing(train(base, dataset, config, output=output)) as records:
        list(islice(records, 3))
    with pytest.raises(ConfigurationError, match="made with gradient_accumulation_steps 2, this run has 1;"):
        list(train(base, dataset, replace(config, gradient_accumulation_steps=1), output=output, resume=True))
    again = replace(config, gradient_checkpointing=True)  # which changes no step
    assert_equal(whole, trained(base, dataset, again, output, resume=True))


def test_a_resumed_training_with_state_in_bytes_is_the_unbroken_one(base, dataset, config, tmp_path):
    pytest.importorskip("bitsandbytes")
    config = replace(config, steps=3, optimizer="adamw-8bit", method="full")
    whole = trained(base, dataset, config, tmp_path / "a.safetensors")
    output = tmp_path / "b.safetensors"
    with closing(train(base, dataset, config, output=output)) as records:
        list(islice(records, 3))
    with pytest.raises(ConfigurationError, match="made with optimizer 'adamw-8bit', this run has 'adamw';"):
        list(train(base, dataset, replace(config, optimizer="adamw"), output=output, resume=True))
    assert_equal(whole, trained(base, dataset, config, output, resume=True))


def test_the_package_of_the_optimizer_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match="the optimizer adamw-8bit needs the package bitsandbytes"):
        created("adamw-8bit", [])


def test_state_in_bytes_goes_on_where_it_was():
    pytest.importorskip("bitsandbytes")
    numbers = torch.linspace(-1, 1, 8192).view(64, 128)
    first, second = nn.Parameter(numbers.clone()), nn.Parameter(numbers.clone())
    whole, rest = (created("adamw-8bit", [{"params": [parameter], "lr": 0.1}]) for parameter in (first, second))
    for step in range(4):
        if step == 2:
            second.data.copy_(first.data)
            set_state(rest, second, {key: value.clone() for key, value in state_tensors(whole, first).items()})
        first.grad = second.grad = numbers * (step + 1)
        whole.step()
        if step >= 2:
            rest.step()
    assert whole.state[first]["state1"].dtype == torch.uint8
    assert torch.equal(first, second)
