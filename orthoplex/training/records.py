"""Step records of a training, and their log."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from orthoplex.errors import OutputError
from orthoplex.files import write_text

SAMPLE_NAME = re.compile(r"step-(\d{5,})-(\d+)\.png")
"""Of a sample picture's file: its step and its number."""


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One step of training, as ``train`` yields it.

    Attributes:
        step: How many steps are done; 0 for the record before the first one.
        steps: How many there will be.
        loss: Denoising loss of the step; None at step 0.
        erasure: The penalty on foreign inputs before its weight, in the form asked for; None where a step has none.
        learning_rate: Of the weights, in this step, whether or not they learn in it, or of the token vectors where no
            weight ever learns; None at step 0.
        seconds: Since training (or its continuation) began, preparation included.
        images: Sample pictures, on the steps that have them.
        output: The finished concept file, in the last record only.
    """

    step: int
    steps: int
    loss: float | None
    erasure: float | None
    learning_rate: float | None
    seconds: float
    images: tuple[Image.Image, ...] = ()
    output: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values."""
        return {
            "step": self.step,
            "steps": self.steps,
            "loss": self.loss,
            "erasure": self.erasure,
            "learning_rate": self.learning_rate,
            "seconds": round(self.seconds, 3),
        }


def log_path(output: Path) -> Path:
    """Where the log of a concept file lies: ``<stem>.log.jsonl`` beside it."""
    return output.with_name(f"{output.stem}.log.jsonl")


def samples_folder(output: Path) -> Path:
    """Where the sample pictures of a concept file lie: ``<stem>.samples/`` beside it."""
    return output.with_name(f"{output.stem}.samples")


def begin_log(path: Path, step: int) -> None:
    """Start a log, or keep the lines of an earlier one up to the step that training continues from.

    A line that a crash cut off is dropped.

    Raises:
        OutputError: When it cannot be written.
    """
    earlier: list[str] = []
    if step > 0 and path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        earlier = [line for line in lines if _step_of(line) <= step]
    write_text(path, "".join(line + "\n" for line in earlier))


def begin_samples(folder: Path, step: int) -> None:
    """Remove the sample pictures of an earlier run: all, or those of steps after the one that training continues from.

    Nothing but files named as ``sample_name`` names them is removed.

    Raises:
        OutputError: When one cannot be removed.
    """
    try:
        for path in folder.iterdir() if folder.is_dir() else ():
            named = SAMPLE_NAME.fullmatch(path.name)
            if named and path.is_file() and (step == 0 or int(named[1]) > step):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"sample pictures in {folder} cannot be removed: {error}") from error


def sample_name(step: int, number: int) -> str:
    """Return the name of a sample picture's file."""
    return f"step-{step:05d}-{number}.png"


def _step_of(line: str) -> float:
    """The step of a log line; infinite for one that a crash cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return math.inf


def append_log(path: Path, record: StepRecord) -> None:
    """Add one record to a log.

    Raises:
        OutputError: When it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record.to_json()) + "\n")
    except OSError as error:
        raise OutputError(f"log {path} cannot be written: {error}") from error
