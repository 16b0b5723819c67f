"""A report on a base: what it is made of, what it can do, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from orthoplex.errors import BaseModelError
from orthoplex.models.base import Base
from orthoplex.models.base_choice import BaseName
from orthoplex.models.base_folder import WEIGHT_SUFFIXES, read_index
from orthoplex.models.base_place import BasePlace, base_place
from orthoplex.models.families import family_of
from orthoplex.models.loading import load_base
from orthoplex.models.problems import problems_of
from orthoplex.models.prompts.prompt_tokens import concept_names
from orthoplex.models.weight_files import WeightFiles, read_headers, stored_dtype

_MB = 1_000_000


@final
@dataclass(frozen=True)
class ComponentReport:
    """A component of a base.

    Attributes:
        name: Its name, and that of its folder.
        kind: Its class, as ``model_index.json`` names it.
        dtype: The type of most of its weights, as ``float16``; None where there are none, or in pickles.
        megabytes: The size of its files of weights, in millions of bytes; None where there are none.
    """

    name: str
    kind: str
    dtype: str | None
    megabytes: float | None


@final
@dataclass(frozen=True)
class SchedulerReport:
    """The scheduler of a base.

    Attributes:
        kind: Its class.
        prediction_type: What the denoiser predicts.
        lowest_steps: The smallest number of inference steps.
        highest_steps: The largest.
    """

    kind: str
    prediction_type: str
    lowest_steps: int
    highest_steps: int


@final
@dataclass(frozen=True)
class BaseReport:
    """What is known of a base. Of one that cannot be loaded, ``problems`` says why, and much is None.

    Attributes:
        name: As it was given.
        version: The version of its family, as concepts name it.
        hash: The hash of its weights.
        components: Its components, as far as its folder names them.
        scheduler: Its scheduler.
        token_limit: The number of tokens of a prompt, without begin and end.
        resolution: Width and height of its pictures, in pixels.
        concepts: Names of the concepts that were merged into it.
        training_defaults: Options of a training that have other defaults with this base.
        not_read: Files and folders in its folder that nothing here reads.
        problems: A line for each thing that is wrong, as far as a check can go: the contents of files where all are
            there, and whether the parts belong together where each can be read.
    """

    name: str
    version: str | None
    hash: str | None
    components: tuple[ComponentReport, ...]
    scheduler: SchedulerReport | None
    token_limit: int | None
    resolution: int | None
    concepts: tuple[str, ...]
    training_defaults: Mapping[str, Any]
    not_read: tuple[str, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        values = asdict(self) | {"training_defaults": dict(self.training_defaults)}
        for name in ("components", "concepts", "not_read", "problems"):
            values[name] = list(values[name])
        return values

    def lines(self) -> Iterator[str]:
        """Yield the report in lines for people, problems last."""
        yield f"base {self.name}" + ("" if self.hash is None else f": {self.version}, hash {self.hash[:16]}")
        for item in self.components:
            size = "" if item.megabytes is None else f", {item.megabytes:.1f} MB"
            yield f"{item.name}: {item.kind}" + ("" if item.dtype is None else f", {item.dtype}") + size
        if self.scheduler is not None:
            scheduler = self.scheduler
            yield f"inference steps: {scheduler.lowest_steps} to {scheduler.highest_steps}, by {scheduler.kind}"
            yield f"prediction: {scheduler.prediction_type}"
        if self.token_limit is not None:
            yield f"prompts: up to {self.token_limit} tokens"
        if self.resolution is not None:
            yield f"pictures: {self.resolution} x {self.resolution} pixels"
        if self.concepts:
            yield f"concepts in it: {', '.join(f'<{name}>' for name in self.concepts)}"
        if self.training_defaults:
            options = ", ".join(f"{name} = {value}" for name, value in self.training_defaults.items())
            yield f"training defaults of its family: {options}"
        if self.not_read:
            yield f"not read: {', '.join(self.not_read)}"
        for problem in self.problems:
            yield f"problem: {problem}"


def base_report(name_or_path: BaseName) -> BaseReport:
    """Report on a base; one that cannot be loaded is reported, too.

    Args:
        name_or_path: As for ``load_base``.
    """
    try:
        place = base_place(name_or_path)
        index = read_index(place)
    except BaseModelError as error:
        return BaseReport(str(name_or_path), None, None, (), None, None, None, (), {}, (), (str(error),))
    family = family_of(index["_class_name"])
    components = tuple(_component(place, name, index.get(name), family.weighed) for name in family.parts())
    base, problems = None, ()
    try:
        base = load_base(name_or_path)
        problems = _training_problems(base)
    except BaseModelError as error:
        problems = problems_of(error)
    return BaseReport(
        name=str(name_or_path),
        version=None if base is None else base.identity.family,
        hash=None if base is None else base.identity.hash,
        components=components,
        scheduler=None if base is None else _scheduler(base),
        token_limit=None if base is None else base.family.words.room("").limit,
        resolution=None if base is None else base.family.resolution,
        concepts=() if base is None else concept_names(base.tokens),
        training_defaults={} if base is None else base.training_defaults,
        not_read=tuple(_not_read(place, {item.name for item in components}, family.weighed)),
        problems=problems,
    )


def _component(place: BasePlace, name: str, entry: Any, weighed: tuple[str, ...]) -> ComponentReport:  # noqa: ANN401 - JSON
    kind = entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else "none"
    files = place.weights(name) if name in weighed else None
    if files is None:
        return ComponentReport(name, kind, None, None)
    headers = read_headers(files)
    dtype = None if not headers else stored_dtype(headers)
    if files.part is not None:
        size = sum(entry.end - entry.start for header in (headers or {}).values() for entry in header.entries.values())
    else:
        size = sum(path.stat().st_size for path in files.files if path.is_file())
    return ComponentReport(name, kind, None if dtype is None else str(dtype).removeprefix("torch."), size / _MB)


def _scheduler(base: Base) -> SchedulerReport:
    steps, sampler = base.family.allowed_inference_steps, base.family.sampler
    return SchedulerReport(sampler.kind, sampler.prediction_type, steps.lowest, steps.highest)


def _training_problems(base: Base) -> tuple[str, ...]:
    try:
        base.check_trainable()
    except BaseModelError as error:
        return tuple(f"no training: {line}" for line in problems_of(error))
    return ()


def _not_read(place: BasePlace, components: set[str], weighed: tuple[str, ...]) -> Iterator[str]:
    """Yield files and folders of a pipeline folder that nothing reads: folders of other parts, and other weights.

    Of the settings of a checkpoint file, nothing is worth a word.
    """
    folder = place.folder
    if place.held:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in components and not path.name.startswith("."):
            yield f"{path.name}/"
        elif path.is_file() and path.suffix in WEIGHT_SUFFIXES:
            yield path.name
    for name in weighed:
        yield from _other_weights(folder, name, place.weights(name))


def _other_weights(folder: Path, name: str, files: WeightFiles | None) -> Iterator[str]:
    if files is None or not (folder / name).is_dir():
        return
    read = {*files.files, files.main}
    for path in sorted((folder / name).iterdir()):
        if path.suffix in WEIGHT_SUFFIXES and path not in read:
            yield f"{name}/{path.name}"
