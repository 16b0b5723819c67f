"""What a benchmark or the demo reports while it works; the doors draw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["train", "merge", "pictures", "measure", "report"]


@dataclass(frozen=True)
class BenchmarkEvent:
    """One step of progress.

    Attributes:
        stage: What is going on.
        done: Units finished in this stage's current task (training steps, picture sets, files).
        total: Units of the task, at least 1.
        message: What the task is, for people.
    """

    stage: Stage
    done: int
    total: int
    message: str
