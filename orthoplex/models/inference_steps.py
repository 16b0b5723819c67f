"""The numbers of denoising steps that a scheduler of diffusers can do, asked of the scheduler itself.

Their classes differ: some double the steps or add one, some end at fewer than they were trained with, some repeat one
timestep or leave the finite numbers without a word. So a copy of the scheduler goes through all of its steps, with a
sample of four numbers in the place of a picture. What it says is remembered for its class, configuration and number of
steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch

from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.files import summary_of, without_warnings
from orthoplex.models.outcomes import Outcomes, settings_key
from orthoplex.models.quiet import quiet

_TRIED = (20, 4, 2)
"""Numbers of steps of which a usable scheduler can do at least one."""
_PREPARED: Outcomes[Any] = Outcomes(32)
_PROBLEMS: Outcomes[str | None] = Outcomes(1024)
"""Schedulers with their timesteps set, and why schedulers cannot do a number of steps."""


@final
@dataclass(frozen=True)
class StepRange:
    """The numbers of inference steps that a scheduler can do.

    Attributes:
        lowest: The smallest.
        highest: The largest.
    """

    lowest: int
    highest: int


def prepared_scheduler(scheduler: Any, num_steps: int, device: str | torch.device = "cpu") -> Any:  # noqa: ANN401
    """Return a scheduler of the same configuration with its timesteps set, in silence; the given one stays as it is.

    Args:
        scheduler: A scheduler of diffusers.
        num_steps: Inference steps.
        device: Where the timesteps go.

    Raises:
        Exception: Whatever the scheduler raises for this number of steps; ``check_inference_steps`` refuses it before.
    """
    # A new scheduler may warn, and silence is a setting of all threads: later pictures copy the first one's.
    key = (*_key(scheduler, num_steps), str(device))
    return deepcopy(_PREPARED.of(key, partial(_prepared, scheduler, num_steps, device)))


def _prepared(scheduler: Any, num_steps: int, device: str | torch.device) -> Any:  # noqa: ANN401
    with quiet(), without_warnings():
        prepared: Any = type(scheduler).from_config(scheduler.config)
        prepared.set_timesteps(num_steps, device=device)
    return prepared


def _key(scheduler: Any, num_steps: int) -> tuple[type, str, int]:  # noqa: ANN401
    return type(scheduler), settings_key(scheduler.config), num_steps


def step_options(scheduler: Any, generators: torch.Generator | Sequence[torch.Generator]) -> dict[str, Any]:  # noqa: ANN401
    """Return further arguments of a scheduler's ``step``: no noise of its own, or noise of the pictures' generators."""
    accepted = inspect.signature(scheduler.step).parameters
    options = {"eta": 0.0, "generator": generators}
    return {name: value for name, value in options.items() if name in accepted}


def check_inference_steps(scheduler: Any, name: str, value: int) -> None:  # noqa: ANN401
    """Refuse a number of inference steps that the scheduler cannot do.

    Args:
        scheduler: The scheduler; it stays as it is.
        name: What the option is called.
        value: The number of steps.

    Raises:
        ConfigurationError: Names option, value and the numbers that are allowed.
    """
    total = scheduler.config.num_train_timesteps
    problem = "" if value > total else _problem(scheduler, value)
    if problem is None:
        return
    allowed = allowed_steps(scheduler)
    if value > total and allowed == StepRange(1, total):
        raise ConfigurationError(f"{name} is {value}; allowed are 1 to {total}, the timesteps of the base's scheduler")
    others = "other numbers from " if allowed.lowest <= value <= allowed.highest else ""
    reason = f": {problem}" if problem else ""
    raise ConfigurationError(
        f"{name} is {value}; allowed are {others}{allowed.lowest} to {allowed.highest} with the base's scheduler "
        f"{type(scheduler).__name__}{reason}"
    )


def allowed_steps(scheduler: Any) -> StepRange:  # noqa: ANN401
    """Find the numbers of inference steps that a scheduler can do, at most its number of timesteps in training.

    The search assumes that they are an interval around a usual number; a single one of them may still be refused when
    it is asked for. It tries at most 20 small numbers and about 20 large ones.

    Args:
        scheduler: The scheduler; it stays as it is.

    Raises:
        BaseModelError: When it can do none; says why.
    """
    total = scheduler.config.num_train_timesteps
    usable = _usable(scheduler, total)
    lowest = next(count for count in range(1, usable + 1) if _problem(scheduler, count) is None)
    distance, refused = 1, total + 1
    highest = total
    while highest > usable and _problem(scheduler, highest) is not None:
        refused, highest = highest, max(total - distance, usable)
        distance *= 2
    while refused - highest > 1:
        middle = (refused + highest) // 2
        if _problem(scheduler, middle) is None:
            highest = middle
        else:
            refused = middle
    return StepRange(lowest, highest)


def check_usable(scheduler: Any) -> None:  # noqa: ANN401
    """Refuse a scheduler that cannot denoise in any usual number of steps.

    Raises:
        BaseModelError: Says why.
    """
    _usable(scheduler, scheduler.config.num_train_timesteps)


def _usable(scheduler: Any, total: int) -> int:  # noqa: ANN401
    problem = None
    for count in dict.fromkeys(min(count, total) for count in _TRIED):
        reason = _problem(scheduler, count)
        if reason is None:
            return count
        problem = problem or reason
    raise BaseModelError(f"scheduler {type(scheduler).__name__} cannot denoise: {problem}")


def _problem(scheduler: Any, count: int) -> str | None:  # noqa: ANN401
    """Return why a scheduler cannot do a number of steps, or None if it can."""
    return _PROBLEMS.of(_key(scheduler, count), partial(_tried, scheduler, count))


def _tried(scheduler: Any, count: int) -> str | None:  # noqa: ANN401
    # The generator of all threads is not saved and put back, which would rewind it for the others: schedulers that draw
    # random numbers take them from the generator that step is given (a test asks every class).
    with quiet(), without_warnings():
        try:
            return _went_wrong(prepared_scheduler(scheduler, count), count)
        except Exception as error:  # noqa: BLE001  (schedulers raise anything)
            return summary_of(error)


@torch.no_grad()
def _went_wrong(scheduler: Any, count: int) -> str | None:  # noqa: ANN401
    """Go through the steps of a scheduler; return what is wrong with them."""
    times = scheduler.timesteps.tolist()
    if len(times) < count or 2 * len(set(times)) < count:
        return f"it has {len(set(times))} different timesteps for them"
    if min(times) < 0:
        return f"its timesteps end at {min(times):g}, below 0"
    if times[0] < times[-1]:
        return f"its timesteps rise from {times[0]:g} to {times[-1]:g}, from a picture to noise"
    options = step_options(scheduler, torch.Generator().manual_seed(0))
    if "order" in inspect.signature(scheduler.step).parameters:
        options["order"] = 2  # LMS integrates its coefficients: a fifth of the time of order 4, and the same divisions
    sample = torch.ones(1, 1, 2, 2) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, time)
        sample = scheduler.step(torch.ones_like(scaled), time, sample, **options, return_dict=False)[0]
    return None if bool(sample.isfinite().all()) else "its numbers do not stay finite"
