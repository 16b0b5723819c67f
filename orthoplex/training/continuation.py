"""How a training goes on from a checkpoint, with more steps than it was begun with, if more are asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from orthoplex.concepts import read_manifest
from orthoplex.errors import ConceptFileError, ConfigurationError
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
            ConfigurationError: When the checkpoint cannot be read, or the run is finished and no more steps are asked
                for.
        """
        path = checkpoint_path(output)
        if not path.is_file():
            return Continuation(config)
        step, identity = read_checkpoint_header(path)
        if not isinstance(before := identity.get("config"), dict):
            return Continuation(config)  # the comparison of identities says what is wrong
        earlier = TrainingConfig.recorded(before)
        lengthened = tuple(identity.get("lengthened_from", ()))
        if config.steps > earlier.steps:
            return Continuation(_with_begun_stages(config, earlier, step), (*lengthened, earlier.steps))
        if config.steps == earlier.steps:
            _refuse_finished(output, step, earlier.steps, identity)
        return Continuation(_with_begun_stages(config, earlier, step) if lengthened else config, lengthened)


def _with_begun_stages(config: TrainingConfig, earlier: TrainingConfig, step: int) -> TrainingConfig:
    """Return the configuration with the first steps of stages that have begun where an earlier run began them."""
    first, last = earlier.first_steps, earlier.steps - earlier.steps_after_erasure
    if config.layers != "none" and 0 < first < step:
        config = replace(config, token_steps=first, erasure_steps=None if last < step else config.erasure_steps)
    after_erasure = min(config.steps_after_erasure, config.steps - step)
    if earlier.steps_after_erasure and last < step:
        after_erasure = config.steps - last
        if config.erasure_steps not in (None, after_erasure, earlier.erasure_steps):
            _LOG.warning(
                "erasure_steps is %d; erasure began at step %d and goes on to step %d",
                config.erasure_steps,
                last,
                config.steps,
            )
    return replace(config, erasure_steps=after_erasure)


def _refuse_finished(output: Path, step: int, steps: int, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with nothing to do; a run that ended before its file was written still has that to do."""
    if step < steps or not output.is_file():
        return
    try:
        manifest = read_manifest(output)
    except ConceptFileError:
        return
    if manifest.name == identity.get("name") and manifest.training.get("steps") == steps:
        raise ConfigurationError(
            f"{output} is finished, at step {step} of {steps}; more steps (--steps) lengthen it, "
            "overwrite (--overwrite) begins anew"
        )
