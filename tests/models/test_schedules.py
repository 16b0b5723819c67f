from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from orthoplex.errors import BaseModelError
from orthoplex.models.schedules import DiscreteSchedule

ALPHAS = torch.tensor([0.64, 0.36])
LATENTS = torch.full((2, 1, 1, 1), 10.0)
NOISE = torch.full((2, 1, 1, 1), 5.0)
TIMES = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("prediction_type", "targets"), [("epsilon", [5.0, 5.0]), ("sample", [10.0, 10.0]), ("v_prediction", [-2.0, -5.0])]
)
def test_noise_and_targets_written_out(prediction_type, targets):
    schedule = DiscreteSchedule(ALPHAS, prediction_type)
    # 0.8 * 10 + 0.6 * 5 and 0.6 * 10 + 0.8 * 5
    assert schedule.add_noise(LATENTS, NOISE, TIMES).flatten().tolist() == pytest.approx([11.0, 10.0])
    assert schedule.target(LATENTS, NOISE, TIMES).flatten().tolist() == pytest.approx(targets)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("zero_terminal", [False, True])
def test_agrees_with_diffusers(prediction_type, zero_terminal):
    if zero_terminal and prediction_type == "epsilon":
        pytest.skip("not defined")
    scheduler = DDIMScheduler(
        prediction_type=prediction_type, rescale_betas_zero_snr=zero_terminal, timestep_spacing="trailing"
    )
    schedule = DiscreteSchedule.of(scheduler)
    latents, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    timesteps = torch.tensor([0, 500, 999])
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, timesteps), scheduler.add_noise(latents, noise, timesteps)
    )
    if prediction_type == "v_prediction":
        theirs = scheduler.get_velocity(latents, noise, timesteps)
        torch.testing.assert_close(schedule.target(latents, noise, timesteps), theirs)
    assert len(schedule) == 1000


def test_the_last_step_of_zero_terminal_snr_is_pure_noise():
    schedule = DiscreteSchedule.of(DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True))
    last = torch.tensor([999])
    latents, noise = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    assert torch.equal(schedule.add_noise(latents, noise, last), noise)
    assert torch.equal(schedule.target(latents, noise, last), -latents)
    assert torch.isfinite(schedule.losses(noise, latents, noise, last, 5.0)).all()


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [
        # SNR is 0.75 / 0.25 = 3 and 0.5 / 0.5 = 1; gamma is 2
        ("epsilon", [2 / 3, 1.0]),
        ("v_prediction", [2 / 4, 1 / 2]),
        ("sample", [2.0, 1.0]),
    ],
)
def test_min_snr_weights(prediction_type, expected):
    schedule = DiscreteSchedule(torch.tensor([0.75, 0.5]), prediction_type)
    assert schedule.weights(TIMES, 2.0).tolist() == pytest.approx(expected)
    assert schedule.weights(TIMES, None).tolist() == [1.0, 1.0]


def test_losses_are_mean_squares_per_item():
    schedule = DiscreteSchedule(ALPHAS, "epsilon")
    noise = torch.zeros(2, 1, 1, 2)
    prediction = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]])
    assert schedule.losses(prediction, noise, noise, TIMES, None).tolist() == [5.0, 4.0]


def test_unknown_prediction_type():
    with pytest.raises(BaseModelError, match="predicts 'flow'; allowed are epsilon, v_prediction, sample"):
        DiscreteSchedule(ALPHAS, "flow")


def test_epsilon_needs_signal_everywhere():
    with pytest.raises(BaseModelError, match="zero terminal SNR and predicts 'epsilon'"):
        DiscreteSchedule(torch.tensor([0.5, 0.0]), "epsilon")


def test_schedulers_without_a_schedule_are_named():
    with pytest.raises(BaseModelError, match="scheduler SimpleNamespace is of no discrete schedule"):
        DiscreteSchedule.of(SimpleNamespace(sigmas=[1.0]))
