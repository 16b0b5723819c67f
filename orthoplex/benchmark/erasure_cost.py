"""The cost of erasure per training step: real trainings of one concept, whose steps alternate.

`python -m orthoplex.benchmark.training_cost` writes its numbers too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orthoplex.benchmark.sources import ConceptSource, training_folder
from orthoplex.errors import ConfigurationError
from orthoplex.models import load_base
from orthoplex.training import ConceptDataset, StepRecord, TrainingConfig, train

FORMS: dict[str, Mapping[str, Any]] = {
    "none": {"erasure": 0.0},
    "activation": {"erasure": 1.0, "erasure_form": "activation"},
    "prediction": {"erasure": 1.0, "erasure_form": "prediction"},
}
"""Name of each training -> the options that distinguish it."""
_PLAIN = {"layers": "attention", "mixed_precision": "no"}
"""Options of all trainings; the others are defaults."""


@dataclass(frozen=True)
class ErasureSettings:
    """The options of the measurement.

    Attributes:
        base: A base.
        training: Training options of all forms that are not the defaults.
        rounds: Turns that every form is timed for, in an order that alternates, after one that is not timed.
        steps: Steps of a turn; with a share of the steps that erasure takes part in, enough to hold it evenly.

    Raises:
        ConfigurationError: For fewer than one round or step.
    """

    base: str = "vignette"
    training: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 6
    steps: int = 4

    def __post_init__(self) -> None:
        """Refuse what nothing could be timed with."""
        for name, value in (("rounds", self.rounds), ("steps", self.steps)):
            if value < 1:
                raise ConfigurationError(f"{name} of the cost of erasure is {value}; allowed: 1 or more")

    def config(self, form: str) -> TrainingConfig:
        """The training options of one form; its steps do not end before the turns do."""
        steps = (self.rounds + 1) * self.steps + 1
        return TrainingConfig.from_mapping({**_PLAIN, **self.training, **FORMS[form], "steps": steps})


def erasure_cost(settings: ErasureSettings, source: ConceptSource) -> dict[str, Any]:
    """Seconds of a step without erasure and with either form of it, and the ratios of the latter to the former.

    A ratio is the median of those of the rounds; the preparation before the first step is reported apart.

    Args:
        settings: What is measured.
        source: The concept that is trained.
    """
    with trainings(settings, source) as running:
        preparation = {form: _seconds(records, 1) for form, records in running.items()}
        seconds: dict[str, list[float]] = {form: [] for form in FORMS}
        for records in running.values():
            _seconds(records, settings.steps)
        for number in range(settings.rounds):
            for form in FORMS if number % 2 == 0 else reversed(FORMS):
                seconds[form].append(_seconds(running[form], settings.steps) / settings.steps)
    options = settings.config("prediction")
    ratios = {
        form: statistics.median(with_it / without for with_it, without in zip(times, seconds["none"], strict=True))
        for form, times in seconds.items()
        if form != "none"
    }
    return {
        "settings": asdict(settings),
        "concept": source.name,
        "method": options.method,
        "layers": options.layers,
        "batch_size": options.batch_size,
        "erasure_batch_size": options.erasure_batch_size,
        "erasure_share": options.erasure_share,
        "preparation_seconds": preparation,
        "step_seconds": {form: statistics.median(times) for form, times in seconds.items()},
        "step_seconds_of_rounds": seconds,
        "step_seconds_to_none": ratios,
    }


@contextmanager
def trainings(
    settings: ErasureSettings, source: ConceptSource
) -> Iterator[dict[str, Generator[StepRecord, None, None]]]:
    """Inside, one training a form runs, each on a base of its own; nothing of them is stored."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        work = Path(name)
        folder, running = training_folder(source, work), {}
        for form in FORMS:
            base = load_base(settings.base)
            dataset = ConceptDataset.from_folder(
                folder,
                resolution=base.family.resolution,
                token=source.token,
                class_word=source.class_word,
                kind=source.kind,
            )
            records = train(base, dataset, settings.config(form), output=work / f"{form}.safetensors")
            running[form] = stack.enter_context(closing(records))
        yield running


def _seconds(records: Generator[StepRecord, None, None], steps: int) -> float:
    """Take steps; return how long they took together."""
    started = time.perf_counter()
    for _ in range(steps):
        next(records)
    return time.perf_counter() - started
