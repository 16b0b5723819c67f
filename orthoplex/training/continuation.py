"""How a training goes on from a checkpoint, with more steps than it was begun with, if more are asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from orthoplex.errors import ConfigurationError
from orthoplex.training.checkpoint import checkpoint_path, read_checkpoint_header
from orthoplex.training.config import TrainingConfig

_LOG = logging.getLogger(__name__)
FREE_IF_LENGTHENED = frozenset(("config.steps", "config.token_steps", "config.erasure_steps", "lengthened_from"))
"""The values of a checkpoint's identity that need not agree with those of a run that is longer."""


@final
@dataclass(frozen=True)
class Continuation:
    """A configuration whose stages fit the steps that are done.

    A stage that has begun goes on where it began: a lengthened run makes its last begun stage longer, and those after
    it take their usual share. The learning rate follows the longer stage.

    Attributes:
        config: The configuration.
        lengthened_from: The numbers of steps that the run had before it was lengthened, each time.
    """

    config: TrainingConfig
    lengthened_from: tuple[int, ...] = ()

    @staticmethod
    def of(config: TrainingConfig, output: Path) -> Continuation:
        """Fit a configuration to the checkpoint of a concept file, if there is one.

        Args:
            config: As asked for.
            output: The concept file.

        Raises:
            ConfigurationError: When the checkpoint cannot be read, the run is finished and no more steps are asked for,
                or fewer are.
        """
        path = checkpoint_path(output)
        if not path.is_file():
            return Continuation(config)
        header = read_checkpoint_header(path)
        step, identity = header.step, header.identity
        if not isinstance(before := identity.get("config"), dict):
            return Continuation(config)  # the comparison of identities says what is wrong
        earlier = TrainingConfig.recorded(before)
        if config.steps < earlier.steps:
            raise ConfigurationError(
                f"steps is {config.steps}, and {output} was begun with {earlier.steps}, of which {step} are done; "
                f"allowed with resume are {earlier.steps} or more"
            )
        lengthened = tuple(identity.get("lengthened_from", ()))
        if config.steps > earlier.steps:
            return Continuation(_with_begun_stages(config, earlier, step), (*lengthened, earlier.steps))
        if header.is_finished and output.is_file():
            raise ConfigurationError(
                f"{output} is finished, at step {step} of {config.steps}; more steps (--steps) lengthen it, "
                "overwrite (--overwrite) begins anew"
            )
        return Continuation(_with_begun_stages(config, earlier, step) if lengthened else config, lengthened)


def is_finished(output: Path) -> bool:
    """Return True if a concept file is there and the checkpoint beside it is that of the finished run.

    Raises:
        ConfigurationError: When the checkpoint cannot be read.
    """
    path = checkpoint_path(output)
    return output.is_file() and path.is_file() and read_checkpoint_header(path).is_finished


def _with_begun_stages(config: TrainingConfig, earlier: TrainingConfig, step: int) -> TrainingConfig:
    """Return the configuration with the first steps of stages that have begun where an earlier run began them."""
    first, last = earlier.first_steps, earlier.steps - earlier.steps_after_erasure
    asked = {"token_steps": config.token_steps, "erasure_steps": config.erasure_steps}
    if config.layers != "none" and 0 < first < step:
        config = replace(config, token_steps=first, erasure_steps=None if last < step else config.erasure_steps)
    has_begun_erasure = earlier.steps_after_erasure > 0 and last < step
    after_erasure = config.steps - last if has_begun_erasure else min(config.steps_after_erasure, config.steps - step)
    config = replace(config, erasure_steps=after_erasure)
    begun = {"token_steps": earlier.token_steps, "erasure_steps": earlier.erasure_steps}
    for name, value in asked.items():
        if value not in (None, getattr(config, name), begun[name]):
            _LOG.warning("%s is %d, and the run takes %d: its stages have begun", name, value, getattr(config, name))
    return config
