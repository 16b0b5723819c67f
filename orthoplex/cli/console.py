"""Shared by all verbs: errors, progress bars and checks of named files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.options import AUTO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from orthoplex.benchmark import BenchmarkEvent
    from orthoplex.concepts import Concept
    from orthoplex.models import Base

ERROR_EXIT = 2
INTERRUPTED_EXIT = 130
SECONDS_BETWEEN_LINES = 60.0
"""Of progress in a log, where no bar can be drawn."""

AlgorithmName = Annotated[
    str, typer.Option(help="How changes of one weight come together; auto: as suits the concepts.")
]
AlgorithmOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=NUMBER", help="Option of the merging algorithm; may be repeated.")
]


def completing(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a completion function for shells: it lists the names that begin with the typed text."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


@contextmanager
def errors_shown() -> Iterator[None]:
    """Print an error of ours on standard error, without a traceback, and exit with code 2; Ctrl-C exits with 130.

    Errors of the file system are printed in the same way. A closed pipe is left to the command line's library.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (OrthoplexError, OSError) as error:
        _leave(f"Error: {error}", ERROR_EXIT, error)
    except Exception as error:
        from safetensors import SafetensorError  # which only files of tensors raise; help and manifests need none

        if not isinstance(error, SafetensorError):
            raise
        _leave(f"Error: {error}", ERROR_EXIT, error)
    except KeyboardInterrupt as error:
        _leave("Interrupted", INTERRUPTED_EXIT, error)


def _leave(message: str, code: int, cause: BaseException) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from cause


def progress_bar(*texts: str) -> Progress:
    """Return a bar on standard error.

    Args:
        texts: Names of fields, shown between the count and the time left; ``update`` sets them.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    fields = [TextColumn("{task.fields[" + text + "]}", markup=False) for text in texts]
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *fields,
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def show_events(events: Generator[BenchmarkEvent, None, None]) -> dict[str, BenchmarkEvent]:
    """Draw a bar for every task of a benchmark, or in a log a line a minute; returns the last event of every stage."""
    last: dict[str, BenchmarkEvent] = {}
    last_line = -math.inf
    with closing(events), progress_bar() as bar:
        tasks: dict[tuple[str, str], TaskID] = {}
        for event in events:
            key = (event.stage, event.message)
            if key not in tasks:
                tasks[key] = bar.add_task(f"{event.stage}: {event.message}", total=event.total)
            bar.update(tasks[key], completed=event.done, total=event.total)
            last[event.stage] = event
            if not bar.console.is_terminal and time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                typer.echo(f"{event.stage}: {event.message} {event.done}/{event.total}", err=True)
                last_line = time.monotonic()
    return last


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to write over something.

    Raises:
        ConfigurationError: When the path exists (and, for a folder, is not empty) and ``overwrite`` is False.
    """
    occupied = any(path.iterdir()) if path.is_dir() else path.exists()
    if occupied and not overwrite:
        raise ConfigurationError(f"output {path} exists; give another name, or --overwrite to replace it")


def refuse_file(folder: Path) -> None:
    """Refuse a name that cannot be a folder; callers check before the work whose results it holds.

    Raises:
        ConfigurationError: When it, or what should be a folder above it, is a file.
    """
    for path in (folder, *folder.parents):
        if path.is_file():
            raise ConfigurationError(f"folder {folder} cannot be: {path} is a file; give another name")


def parse_strength(text: str) -> tuple[Path, float]:
    """Read ``FILE`` or ``FILE@STRENGTH``; the suffix ``.safetensors`` may be left out.

    Raises:
        ConfigurationError: When the strength is no finite number, or the file has no name.
    """
    name, separator, number = text.rpartition("@")
    if not separator or Path(text).is_file():
        name, number = text, "1"
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise ConfigurationError(f"strength of {name} is {number!r}; allowed are finite numbers, as in {name}@0.8")
    path = Path(name)
    if not path.name:
        raise ConfigurationError(f"concept is {text!r}; allowed are file names, as in anna.safetensors or anna@0.8")
    full = path.with_name(path.name + ".safetensors")
    return (full if path.suffix != ".safetensors" and not path.exists() else path), strength


def load_concepts(texts: Sequence[str], base: Base) -> list[tuple[Concept, float]]:
    """Load concepts with their strengths from ``FILE[@STRENGTH]`` arguments, as concepts of the base or a relative."""
    from orthoplex.concepts import load_concept
    from orthoplex.models import on_base

    named = [parse_strength(text) for text in texts]
    return [(on_base(load_concept(path), base), strength) for path, strength in named]


def parse_options(texts: Sequence[str]) -> dict[str, float]:
    """Read ``KEY=NUMBER`` arguments.

    Raises:
        ConfigurationError: When one has no ``=`` or no finite number behind it.
    """
    options: dict[str, float] = {}
    for text in texts:
        key, _, number = text.partition("=")
        if key.strip() in options:
            raise ConfigurationError(f"option {key.strip()!r} is given twice; allowed: once")
        try:
            options[key.strip()] = float(number)
        except ValueError as error:
            raise ConfigurationError(f"option is {text!r}; allowed is KEY=NUMBER, as in density=0.2") from error
    return options


def check_merge_options(*, algorithm: str, options: Mapping[str, float], scale: float) -> None:
    """Refuse what no merge could be, before concepts are read; ``auto`` stands for the algorithm that suits them.

    Raises:
        ConfigurationError: When the algorithm or an option is unknown or not allowed, or the scale is no finite number.
    """
    from orthoplex.merging import ALGORITHMS, check_options

    if algorithm != AUTO:
        check_options(algorithm=algorithm, options=options, scale=scale)
        return
    check_options(algorithm="sum", scale=scale)
    if options:
        raise ConfigurationError(
            f"option {next(iter(options))!r} is given for algorithm '{AUTO}', which chooses its own; allowed with "
            f"--algorithm {', '.join(ALGORITHMS)}"
        )
