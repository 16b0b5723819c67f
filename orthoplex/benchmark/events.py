"""Progress events of benchmarks and the demo; the command line draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["train", "merge", "pictures", "measure", "report"]


@dataclass(frozen=True)
class BenchmarkEvent:
    """One step of progress.

    Attributes:
        stage: The kind of work.
        done: Units finished in this stage's current task (training steps, picture sets, files).
        total: Units of the task, at least 1.
        message: The task in words.
    """

    stage: Stage
    done: int
    total: int
    message: str
