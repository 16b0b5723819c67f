"""Event files for TensorBoard: the numbers and the sample pictures of a training, beside its log."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orthoplex.errors import MissingExtraError, OutputError
from orthoplex.training.records import SAMPLE_NAME, StepRecord, log_path, samples_folder

_SCALARS = {"loss": "training/loss", "erasure": "training/erasure", "learning_rate": "training/learning_rate"}
"""Key of a record -> tag in TensorBoard."""
_EVENT_FILES = "events.out.tfevents.*"
_SECONDS = 5
"""After which numbers are on disk, so that TensorBoard may follow a training."""


def events_folder(output: Path) -> Path:
    """Where the event files of a concept file lie: ``<stem>.tensorboard/`` beside it."""
    return output.with_name(f"{output.stem}.tensorboard")


def check_event_files(output: Path) -> None:
    """Refuse event files that could not be written.

    Raises:
        MissingExtraError: When TensorBoard is not installed.
        OutputError: When a file lies in the place of their folder.
    """
    _writer_class()
    folder = events_folder(output)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; allowed is a folder for event files")


def with_event_files(records: Generator[StepRecord, None, None], output: Path) -> Generator[StepRecord, None, None]:
    """Yield the records of a training, and write them as event files.

    The file is written anew from the log and the sample pictures when the first record comes, so that a resumed
    training shows every step once, those before TensorBoard was asked for too.

    Args:
        records: As ``train`` yields them, after the log has their line and the samples folder their pictures.
        output: The concept file.

    Raises:
        OutputError: When they cannot be written; the training then leaves a checkpoint.
    """
    writer: Any = None
    try:
        with closing(records):
            for record in records:
                try:
                    if writer is None:
                        writer = _begun(output)
                        _replay(writer, output)
                    else:
                        _write(writer, record.to_json())
                        for number, image in enumerate(record.images):
                            _write_picture(writer, record.step, number, image)
                except OSError as error:
                    raise _not_written(output, error) from error
                yield record
    finally:
        if writer is not None:
            _close(writer, output)


def _begun(output: Path) -> Any:  # noqa: ANN401  (a class of torch's own)
    """Replace earlier event files by an empty one."""
    folder = events_folder(output)
    for path in folder.glob(_EVENT_FILES) if folder.is_dir() else ():
        path.unlink()
    return _writer_class()(str(folder), purge_step=0, flush_secs=_SECONDS)


def _replay(writer: Any, output: Path) -> None:  # noqa: ANN401  (likewise)
    """Write what the log and the samples folder hold."""
    samples = samples_folder(output)
    for line in log_path(output).read_text(encoding="utf-8").splitlines():
        _write(writer, json.loads(line))
    for path in sorted(samples.iterdir()) if samples.is_dir() else ():
        if named := SAMPLE_NAME.fullmatch(path.name):
            with Image.open(path) as image:
                _write_picture(writer, int(named[1]), int(named[2]), image)


def _write(writer: Any, numbers: Mapping[str, Any]) -> None:  # noqa: ANN401  (a class of torch's own)
    for key, tag in _SCALARS.items():
        if numbers[key] is not None:
            writer.add_scalar(tag, numbers[key], numbers["step"])


def _write_picture(writer: Any, step: int, number: int, image: Image.Image) -> None:  # noqa: ANN401  (likewise)
    writer.add_image(f"samples/{number}", np.asarray(image.convert("RGB")), step, dataformats="HWC")


def _close(writer: Any, output: Path) -> None:  # noqa: ANN401  (likewise)
    try:
        writer.close()
    except OSError as error:
        raise _not_written(output, error) from error


def _not_written(output: Path, error: OSError) -> OutputError:
    return OutputError(f"event files in {events_folder(output)} cannot be written: {error}")


def _writer_class() -> Any:  # noqa: ANN401  (likewise)
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise MissingExtraError("report_to=tensorboard", "tensorboard", "tensorboard") from error
