"""Shared by all verbs: errors, progress bars and checks of named files."""

from __future__ import annotations

import errno
import math
import os
import re
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orthoplex.cli.guard import INTERRUPTED_EXIT, LeftByLibrary
from orthoplex.cli.streams import note, warnings_shown
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.files import PICKLE_SUFFIXES, one_line, summary_of
from orthoplex.options import AUTO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from orthoplex.benchmark import BenchmarkEvent
    from orthoplex.concepts import Concept
    from orthoplex.models import Base
    from orthoplex.models.prompts.lora_tags import LoraTag

ERROR_EXIT = 2
_LONGEST_NAME = 60
_SYSTEM_CURES = {
    errno.ENAMETOOLONG: "; give a shorter name",
    errno.EACCES: "; allow reading it, and entering its folders",
    errno.ENOTDIR: "; a part of the path is a file",
}
"""Number of an error of the system -> what to do."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
"""Of files that are named as they are, so that the refusal names them too."""
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
    """Print an error of ours on standard error in one line and exit with code 2; Ctrl-C exits with 130.

    Errors of the file system are printed in the same way, and warnings that the library logs. All others are left to
    the guard of the door; so is a library that ends the program.
    """
    with warnings_shown():
        try:
            yield
        except OSError as error:
            _leave(f"Error: {_about_system(error)}", ERROR_EXIT, error)
        except OrthoplexError as error:
            _leave(f"Error: {one_line(str(error)) or summary_of(error)}", ERROR_EXIT, error)
        except SystemExit as error:
            raise LeftByLibrary from error
        except Exception as error:
            from safetensors import SafetensorError  # which only files of tensors raise; help and manifests need none

            if not isinstance(error, SafetensorError):
                raise
            _leave(f"Error: {one_line(str(error))}", ERROR_EXIT, error)
        except KeyboardInterrupt as error:
            _leave("Interrupted", INTERRUPTED_EXIT, error)


def _about_system(error: OSError) -> str:
    """Return an error of the file system in one line: the file, what happened, and the cure where there is one."""
    if not isinstance(error.filename, str | bytes) or error.strerror is None:
        return one_line(str(error)) or summary_of(error)
    name = one_line(os.fsdecode(error.filename))
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    cure = _SYSTEM_CURES.get(error.errno or 0, "")
    return f"{name} cannot be used: {error.strerror}{cure}"


def argument_folder(text: str) -> Path:
    """Return the folder of an argument; an empty one, which would be the folder of the command, is refused."""
    with errors_shown():
        if _ADDRESS.match(text):
            raise ConfigurationError(
                f"folder is {text!r}; an address is not read, download it first and give the folder"
            )
        if not text.strip():
            raise ConfigurationError(f"folder is {text!r}; allowed is the name of a folder, as in . for this one")
    return Path(text)


def _leave(message: str, code: int, cause: BaseException) -> NoReturn:
    note(message)
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
                note(f"{event.stage}: {event.message} {event.done}/{event.total}")
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


def refuse_concept_output(path: Path, overwrite: bool) -> None:
    """Refuse a name that no concept file has, and to write over a file.

    Raises:
        ConfigurationError: When the name does not end in ``.safetensors``; see ``refuse_existing``.
    """
    if path.suffix != ".safetensors":
        raise ConfigurationError(f"output is {path}; allowed are names that end in .safetensors")
    refuse_existing(path, overwrite)


def check_erasure_weight(weight: float) -> None:
    """Refuse a weight of erasure that is no finite number above 0.

    Raises:
        ConfigurationError: Names the weight.
    """
    if not 0 < weight < math.inf:
        raise ConfigurationError(f"--weight is {weight}; allowed are finite numbers above 0")


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

    An ``@`` belongs to the path where a file of the whole name exists, or a folder ends behind it.

    Raises:
        ConfigurationError: When the strength is no finite number, or the file has no name.
    """
    if _ADDRESS.match(text):
        raise ConfigurationError(f"concept is {text!r}; an address is not read, download the file first and give it")
    name, separator, number = text.rpartition("@")
    if not separator or "/" in number or os.sep in number or _with_suffix(Path(text)).is_file():
        name, number = text, "1"
    path = Path(name).expanduser()
    if not path.name:
        raise ConfigurationError(f"concept is {text!r}; allowed are file names, as in anna.safetensors or anna@0.8")
    full = _with_suffix(path)
    advice = None if full.exists() else _other_spelling(name)
    if advice is not None:
        raise ConfigurationError(f"concept is {text!r}; a strength stands behind an @, as in {advice}")
    if (meant := _meant(text, name, full)) is not None:
        raise ConfigurationError(f"concept is {text!r}; there is no such file, {meant}")
    strength = _number(number)
    if not math.isfinite(strength):
        raise ConfigurationError(
            f"strength of {name} is {number!r}; allowed are finite numbers, as in {_advised(name, number)}"
        )
    return full, strength


def _meant(text: str, name: str, full: Path) -> str | None:
    """Return what was meant by a file that is not there: several files, or one whose name is nearly the same."""
    try:
        if full.exists():
            return None
        near = [path for path in full.parent.iterdir() if _rough(path.name) == _rough(full.name)]
    except OSError:
        return None
    if near:
        return f"but {min(near)}"
    parts = [part.strip() for part in re.split("[,;]", text)]
    return f"each file stands alone, as in {' '.join(parts)}" if re.search("[,;]", name) and all(parts) else None


def _rough(name: str) -> str:
    """Return the name of a concept file as it is when nobody looks closely: case, accents, blanks and the suffix."""
    return re.sub(r"(\.safetensors|\s)+$", "", unicodedata.normalize("NFC", name).casefold()).strip()


def named_file(text: str) -> Path:
    """Return the concept file of an argument that takes no strength; the suffix ``.safetensors`` may be left out.

    Raises:
        ConfigurationError: When there is a strength, or the file has no name.
    """
    path, strength = parse_strength(text)
    if strength != 1:
        raise ConfigurationError(f"concept is {text!r}; allowed is the file without a strength, as in {path}")
    return path


def _with_suffix(path: Path) -> Path:
    """Return the file that a name stands for."""
    if not path.name or path.suffix in (".safetensors", *PICKLE_SUFFIXES) or path.is_file():
        return path
    full = path.with_name(path.name + ".safetensors")
    return path if path.is_dir() and not full.exists() else full


def _number(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text.strip()) else math.nan


def _advised(name: str, number: str) -> str:
    """Return the spelling that was meant: ``anna@0.8`` for 80%, for 0,8, and for 0.8.safetensors."""
    number = number.strip()
    stem = number.removesuffix(".safetensors")
    if stem != number and math.isfinite(_number(stem)):
        return f"{name}.safetensors@{stem}"
    if number.endswith("%") and math.isfinite(_number(number[:-1])):
        return f"{name}@{_number(number[:-1]) / 100:g}"
    decimal = number.replace(",", ".")
    return f"{name}@{decimal if math.isfinite(_number(decimal)) else '0.8'}"


def _other_spelling(name: str) -> str | None:
    """Return how a concept with a strength of another program's spelling is written here; None for none."""
    spelled = re.fullmatch(r"(?:<(?:lora|lyco):)?([^<>:=*]+)[:=*]([-+0-9.,%]+)(?::[^>]*)?>?", name)
    return _advised(spelled[1], spelled[2]) if spelled else None


def load_concepts(texts: Sequence[str], base: Base) -> list[tuple[Concept, float]]:
    """Load concepts with their strengths from ``FILE[@STRENGTH]`` arguments, as concepts of the base or a relative.

    LoRA files of other programs are concepts, too.
    """
    return [(_loaded(path, base), strength) for path, strength in [parse_strength(text) for text in texts]]


def load_tagged(tagged: Sequence[tuple[Path, LoraTag]], base: Base) -> list[tuple[Concept, float]]:
    """Load the files that a prompt's tags name, each with the strengths of its tag."""
    from orthoplex.concepts.part_strengths import with_part_strengths

    for _, tag in tagged:
        if tag.is_ambiguous:
            note(
                f"<lora:{tag.name}:{tag.strength:g}:{tag.text_strength:g}> is read as SwarmUI does: "
                f"{tag.text_strength:g} is for the text encoder; AUTOMATIC1111's program reads it the other way round, "
                f"and te={tag.text_strength:g}:unet={tag.strength:g} says it for both"
            )
    encoders = base.family.text_encoders
    return [with_part_strengths(_loaded(path, base), tag.strength, tag.text_strength, encoders) for path, tag in tagged]


def _loaded(path: Path, base: Base) -> Concept:
    from orthoplex.concepts import read_concept
    from orthoplex.models import check_layers, on_base

    concept = on_base(read_concept(path, base.identity), base)
    check_layers(concept, base)
    return concept


def note_triggers(concepts: Sequence[tuple[Concept, float]], prompt: str) -> None:
    """Note the concepts without tokens whose triggers are not in a prompt; a header may tell several triggers."""
    from orthoplex.models import with_words

    called = {concept.name: concept.manifest.rare_word for concept, _ in concepts if concept.manifest.rare_word}
    words = " ".join(with_words(prompt, called).lower().split())
    for concept, strength in concepts:
        trigger = concept.manifest.trigger
        parts = [" ".join(part.lower().split()) for part in re.split("[,;|]", trigger)]
        if strength and not concept.tokens and any(parts) and not any(part and part in words for part in parts):
            note(f"{concept.name} is loaded and its trigger is not in the prompt; write {trigger}")


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
