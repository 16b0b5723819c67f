"""Erasure while training, on foreign inputs."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.activations.prior_pictures import make_prior_pictures
from orthoplex.training import stages, train
from orthoplex.training.prediction_erasure import PredictionErasure
from orthoplex.training.run import Run
from tests.activations.test_foreign_inputs import adapters_of, foreign_inputs
from tests.pico import tokens_of

DIM = 24


def test_prediction_erasure_is_zero_for_the_base_and_the_square_of_what_moves(base, config):
    config = replace(config, erasure_batch_size=8)
    with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))) as names:
        inputs = foreign_inputs(base)
        erasure = PredictionErasure.prepare(base, config, inputs, names, "anna")
        adapters = adapters_of(base)
        with base.attached(adapters):
            assert erasure.penalty(0).item() == pytest.approx(0, abs=1e-10)
            for adapter in adapters.values():
                torch.nn.init.normal_(adapter.up, generator=torch.Generator().manual_seed(5))
            whole = erasure.penalty(0)
            with torch.no_grad():
                moved = inputs.predict(base, names)
        assert whole.item() == pytest.approx(float((moved - erasure.targets).square().mean()), rel=1e-4)
        few = replace(erasure, config=replace(config, erasure_batch_size=2))
        with base.attached(adapters):
            assert few.penalty(3).item() == few.penalty(3).item() != few.penalty(4).item()
            whole.backward()
        assert all(adapter.up.grad is not None for adapter in adapters.values())


@pytest.mark.parametrize("text_encoder", [False, True])
def test_layers_that_see_the_text_alone_learn_the_same_without_prior_pictures(
    base, dataset, config, tmp_path, monkeypatch, text_encoder
):
    config = replace(config, steps=2, layers="cross-attention-kv", text_encoder=text_encoder)
    made = []

    def making(*arguments):
        made.append(make_prior_pictures(*arguments))
        return made[-1]

    def trained(name, config):
        list(train(base, dataset, config, output=tmp_path / name))
        return load_file(tmp_path / name)

    monkeypatch.setattr(stages, "make_prior_pictures", making)
    without = trained("without.safetensors", config)
    assert not made
    monkeypatch.setattr(stages, "_uses_prior", lambda *_: True)
    found = trained("with.safetensors", config)
    assert len(made) == 1
    assert found.keys() == without.keys() and all(torch.equal(found[name], without[name]) for name in found)


@pytest.mark.parametrize(
    "changes", [{"layers": "cross-attention"}, {"erasure_form": "prediction"}, {"prior_weight": 1.0}]
)
def test_prior_pictures_are_made_where_they_uses_prior(base, dataset, config, changes):
    run = Run.of(base, dataset, replace(config, **{"layers": "cross-attention-kv", **changes}))
    assert stages._uses_prior(base, run)
