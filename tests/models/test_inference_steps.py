"""How many steps a scheduler can do: every class of diffusers is asked, and its numbers must stay finite."""

import inspect
import re
import threading
import time
import warnings
from contextlib import suppress

import diffusers.schedulers
import pytest
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import nn

from orthoplex.errors import BaseModelError, ConfigurationError, OrthoplexError
from orthoplex.generation import generate
from orthoplex.models import inference_steps, load_base
from orthoplex.models.inference_steps import (
    StepRange,
    allowed_steps,
    check_inference_steps,
    check_usable,
    prepared_scheduler,
)
from orthoplex.models.quiet import quiet

SD15 = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
"""Of the scheduler of Stable Diffusion 1.5, whose class is PNDM."""
CLASSES = {
    name: kind
    for name in sorted(dir(diffusers.schedulers))
    if inspect.isclass(kind := getattr(diffusers.schedulers, name, None))
    and issubclass(kind, SchedulerMixin)
    and kind is not SchedulerMixin
}


class Stub(nn.Module):
    """A U-Net in the place of the base's, which predicts at once."""

    def __init__(self, unet):
        super().__init__()
        self.config, self.weight = unet.config, nn.Parameter(torch.zeros(1))
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, noisy, times, features, timestep_cond=None):
        return type("Output", (), {"sample": noisy * 0.5})


@pytest.fixture(scope="module")
def stub_base(pico_folder):
    """A base that draws in no time."""
    base = load_base(pico_folder)
    base.pipeline.unet = Stub(base.pipeline.unet)
    return base


def built(name, **options):
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        return CLASSES[name].from_config({**SD15, **options})


def outcome(base, steps):
    """``n/n``, or the line that refuses."""
    seen = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generate(base, "a cat", num_images=9, num_inference_steps=steps, guidance_scale=1.0, progress=seen.append)
    except OrthoplexError as error:
        assert "\n" not in str(error) and "allowed are" in str(error)
        return str(error)
    assert [progress.step for progress in seen] == list(range(1, seen[-1].steps + 1))
    return f"{seen[-1].step}/{seen[-1].steps}"


@pytest.mark.parametrize(
    ("name", "options", "steps", "expected"),
    [
        ("PNDMScheduler", {}, 40, "82/82"),  # two batches of 41
        ("HeunDiscreteScheduler", {}, 4, "14/14"),
        ("KDPM2DiscreteScheduler", {}, 3, "10/10"),
        ("DDIMScheduler", {}, 3, "6/6"),
        (
            "PNDMScheduler",
            {"skip_prk_steps": False},
            2,
            "num_inference_steps is 2; allowed are 4 to 999 with the base's scheduler PNDMScheduler: ValueError",
        ),
        (
            "LCMScheduler",
            {},
            60,
            "num_inference_steps is 60; allowed are 1 to 50 with the base's scheduler LCMScheduler: ValueError",
        ),
        ("DPMSolverMultistepScheduler", {}, 999, "allowed are 1 to 998 with .*: its numbers do not stay finite"),
        ("DPMSolverMultistepScheduler", {}, 1000, "allowed are 1 to 998 with .*IndexError|different timesteps"),
        ("DDIMScheduler", {}, 1000, "num_inference_steps is 1000; allowed are 1 to 999 with the base's scheduler DDIM"),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, 1001, "allowed are 1 to 1000, the timesteps of the base's"),
        ("DDIMScheduler", {"num_train_timesteps": 7}, 8, "num_inference_steps is 8; allowed are 1 to 6 with"),
    ],
)
def test_progress_ends_at_n_of_n_or_the_allowed_numbers_are_named(stub_base, name, options, steps, expected):
    stub_base.pipeline.scheduler = built(name, **options)
    assert re.search(expected, outcome(stub_base, steps))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("DDIMScheduler", (1, 999)), ("TCDScheduler", (1, 50)), ("UniPCMultistepScheduler", (1, 998))],
)
@pytest.mark.slow
def test_the_largest_number_is_searched(name, allowed):
    assert allowed_steps(built(name)) == StepRange(*allowed)


def test_trying_leaves_scheduler_and_random_numbers_alone():
    scheduler = DDIMScheduler()
    before, state = scheduler.timesteps.tolist(), torch.get_rng_state()
    check_inference_steps(scheduler, "steps", 20)
    assert scheduler.timesteps.tolist() == before and torch.equal(torch.get_rng_state(), state)


class Unlucky(DDIMScheduler):
    """Can do neither 27 steps nor fewer than 13."""

    def set_timesteps(self, count, device=None):
        if count == 27:
            raise ValueError("twenty-seven\n is unlucky")
        if count < 13:
            raise ValueError("too few")
        super().set_timesteps(count, device)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (27, "other numbers from 13 to 1000 with the base's scheduler Unlucky: ValueError: twenty-seven is unlucky"),
        (12, "13 to 1000 with the base's scheduler Unlucky: ValueError: too few"),
        (1001, "13 to 1000 with the base's scheduler Unlucky"),
    ],
)
def test_a_number_that_does_not_work_is_named_with_the_reason(steps, expected):
    with pytest.raises(ConfigurationError) as caught:
        check_inference_steps(Unlucky(), "steps", steps)
    assert str(caught.value) == f"steps is {steps}; allowed are {expected}"


class Interrupted(DDIMScheduler):
    """Another thread draws a random number while this scheduler is tried."""

    def step(self, *arguments, generator=None, **options):
        if not DRAWN:
            thread = threading.Thread(target=lambda: DRAWN.append(torch.rand(1)))
            thread.start()
            thread.join()
        return super().step(*arguments, generator=generator, **options)


DRAWN = []


def test_trials_leave_the_random_numbers_of_other_threads():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        check_inference_steps(Interrupted(), "steps", 5)
        assert DRAWN == [expected[0]] and torch.rand(1) == expected[1]  # and not the first one again


def test_no_scheduler_draws_from_the_generator_of_all_threads():
    """What makes ``fork_rng``, which rewinds the random numbers of all threads, needless in a trial."""
    before = torch.get_rng_state()
    for name in CLASSES:
        with suppress(Exception):  # those that take other options draw nothing either
            inference_steps._tried(built(name), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_try_nothing_again_and_leave_warnings_alone(stub_base, monkeypatch):
    stub_base.pipeline.scheduler = built("EulerDiscreteScheduler", num_train_timesteps=777)
    assert outcome(stub_base, 4) == "8/8"
    for name in ("without_warnings", "_went_wrong", "_prepared"):
        monkeypatch.setattr(inference_steps, name, lambda *arguments: pytest.fail("it is tried again"))
    assert outcome(stub_base, 4) == "8/8"


def test_another_configuration_is_tried():
    check_inference_steps(built("DDIMScheduler", timestep_spacing="trailing"), "steps", 1000)
    with pytest.raises(ConfigurationError, match="allowed are 1 to 999"):
        check_inference_steps(built("DDIMScheduler"), "steps", 1000)


def test_a_prepared_scheduler_is_as_new():
    scheduler = built("UniPCMultistepScheduler")
    first, second = (prepared_scheduler(scheduler, 5) for _ in range(2))
    for timestep in first.timesteps:
        first.step(torch.ones(1, 1, 2, 2), timestep, torch.ones(1, 1, 2, 2))
    third = prepared_scheduler(scheduler, 5)
    assert second.step_index is third.step_index is None and third.model_outputs == second.model_outputs
    assert torch.equal(second.timesteps, third.timesteps) and scheduler.num_inference_steps is None


def test_the_search_among_slow_schedulers_is_bounded():
    pytest.importorskip("scipy", reason="LMS integrates by it")
    began = time.process_time()
    assert allowed_steps(built("LMSDiscreteScheduler", num_train_timesteps=300)) == StepRange(1, 299)
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DDIMInverseScheduler", "its timesteps rise from 1 to 951, from a picture to noise"),
        ("CogVideoXDPMScheduler", "TypeError: .*missing 2 required positional arguments"),
        ("EDMEulerScheduler", r"its timesteps end at -\d"),
    ],
)
def test_schedulers_that_cannot_denoise_say_why(name, reason):
    with pytest.raises(BaseModelError, match=f"scheduler {name} cannot denoise: {reason}"):
        check_usable(built(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_every_scheduler_draws_finite_pictures_or_is_refused(stub_base, name):
    try:
        scheduler = built(name)
        if "alphas_cumprod" not in vars(scheduler):
            pytest.skip("of no discrete schedule")
        check_usable(scheduler)
    except (TypeError, ValueError) as error:
        pytest.skip(f"takes other options: {error}")
    except BaseModelError as error:
        assert "\n" not in str(error)
        return
    stub_base.pipeline.scheduler = scheduler
    outcomes = {steps: outcome(stub_base, steps) for steps in (1, 2, 3, 4, 20, 999, 1000, 1001)}
    assert "/" in outcomes[20].partition(";")[0] and "allowed are" in outcomes[1001], outcomes
