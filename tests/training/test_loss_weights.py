"""The loss of a step against formulas written out: uniform weights and min-SNR, on every kind of prediction."""

from dataclasses import replace

import pytest
import torch

from orthoplex.models import load_base
from orthoplex.models.flow_schedule import FlowSchedule
from orthoplex.models.schedules import DiscreteSchedule
from orthoplex.training import loop, train
from orthoplex.training.batches import TrainingData
from tests.pico_flow import build_flux

ALPHAS = torch.linspace(0.95, 0.02, 1000)
"""ᾱ of each time: SNR from 19 to 0.02, on both sides of gamma."""


def epsilon(_, noise, alpha):
    return noise, alpha / (1 - alpha), lambda snr, gamma: min(snr, gamma) / snr


def velocity(latents, noise, alpha):
    return alpha**0.5 * noise - (1 - alpha) ** 0.5 * latents, alpha / (1 - alpha), lambda s, g: min(s, g) / (s + 1)


def sample(latents, _, alpha):
    return latents, alpha / (1 - alpha), lambda snr, gamma: min(snr, gamma)


def flow(latents, noise, sigma):
    return noise - latents, ((1 - sigma) / sigma) ** 2, lambda snr, gamma: min(snr, gamma) * sigma**2


@pytest.mark.parametrize("gamma", [None, 0.5, 5.0])
@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (DiscreteSchedule(ALPHAS, "epsilon"), epsilon),
        (DiscreteSchedule(ALPHAS, "v_prediction"), velocity),
        (DiscreteSchedule(ALPHAS, "sample"), sample),
        (FlowSchedule(), flow),
        (FlowSchedule(3.0), flow),
    ],
)
@torch.no_grad()
def test_a_step_has_the_loss_of_the_formula(base, dataset, config, schedule, formula, gamma):
    config = replace(config, min_snr_gamma=gamma, token_vectors="rare word")
    data = TrainingData.prepare(base, dataset.called("dog"), config, None)
    data = replace(data, schedule=schedule)
    batch, items = data.batch(config, 0), []
    for number, time in enumerate(batch.times):
        latents, noise = batch.latents[number], batch.noise[number]
        level = float(ALPHAS[time]) if isinstance(schedule, DiscreteSchedule) else float(time) / 1000
        clean, noisy = (level**0.5, (1 - level) ** 0.5) if formula is not flow else (1 - level, level)
        inputs = (clean * latents + noisy * noise).unsqueeze(0)
        prediction = base.family.predict(
            inputs, time.unsqueeze(0), base.family.condition(batch.ids[number : number + 1])
        )
        target, snr, weight = formula(latents, noise, level)
        items.append((1.0 if gamma is None else weight(snr, gamma)) * float((prediction[0] - target).square().mean()))
    loss = loop._denoising_loss(base, data, config, batch)
    assert float(loss) == pytest.approx(sum(items) / len(items), rel=1e-4)


def losses(base, dataset, config, output):
    return [record.loss for record in train(base, dataset, config, output=output) if record.loss is not None]


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory):
    return build_flux(tmp_path_factory.mktemp("flux") / "pipeline")


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("stable-diffusion", {"text_encoder": True, "gradient_checkpointing": True}),
        ("flux", {"min_snr_gamma": 5.0}),
        pytest.param("stable-diffusion", {"min_snr_gamma": 5.0}, marks=pytest.mark.slow),
        pytest.param("stable-diffusion", {"token_vectors": "rare word"}, marks=pytest.mark.slow),
        pytest.param("flux", {"token_vectors": "rare word"}, marks=pytest.mark.slow),
        pytest.param("flux", {"text_encoder": True, "gradient_checkpointing": True}, marks=pytest.mark.slow),
    ],
)
def test_a_base_of_bfloat16_trains_as_one_of_float32(request, dataset, config, tmp_path, family, values):
    folder = request.getfixturevalue("flux_folder" if family == "flux" else "pico_folder")
    config = replace(config, steps=1, erasure=0.0, **values)
    exact = losses(load_base(folder), dataset, config, tmp_path / "a.safetensors")
    base = load_base(folder, dtype=torch.bfloat16)
    before = {name: value.clone() for name, value in base.family.components()["text_encoder"].state_dict().items()}
    rounded = losses(base, dataset, config, tmp_path / "b.safetensors")
    assert rounded == pytest.approx(exact, rel=0.05)
    after = base.family.components()["text_encoder"].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
