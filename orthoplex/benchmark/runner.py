"""Compute the missing parts of an experiment, and write its result."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import torch

from orthoplex.activations import with_article
from orthoplex.benchmark.contact_sheet import Block, write_contact_sheet
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.experiment import Choices, Experiment, load_experiment
from orthoplex.benchmark.experiment_result import ExperimentResult
from orthoplex.benchmark.measurement import References, read_references
from orthoplex.benchmark.parallel import fill
from orthoplex.benchmark.plots import check_charts
from orthoplex.benchmark.report import write_result
from orthoplex.benchmark.side_by_side import side_by_side
from orthoplex.benchmark.study import Study, StudyResults, fill_prompts
from orthoplex.benchmark.text_readers import text_reader
from orthoplex.benchmark.workspace import Workspace
from orthoplex.concepts import Token, token_names
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import CapacityError, PromptError
from orthoplex.evaluation import Encoder
from orthoplex.files import write_text
from orthoplex.models import Base, read_prompt
from orthoplex.options import Limits, checked
from orthoplex.training import check_layers


def run(
    path: str | Path, *, results: str | Path, work: str | Path, processes: int = 1, choices: Choices | None = None
) -> Generator[BenchmarkEvent, None, None]:
    """Compute the experiment of a TOML file and write its tables and pictures into a results folder.

    These are `NAME.json`, and from its numbers `NAME.md`, `NAME.svg`, `NAME-recognised.svg` and, where the experiment
    asks for it, `NAME-together.svg`, `NAME-crosstalk.svg` and `NAME-silence.svg`. A sheet of the pictures of the first
    seed, `NAME.jpg`, is written where it is asked for. Where several encoders measure the pictures, each has these
    files with its kind behind the name, and `NAME.md` sets them side by side.

    Only what is missing in the work folder is computed; a stopped run goes on where it was.

    Args:
        path: The experiment (see `load_experiment`).
        results: Folder of the result files.
        work: Folder that remembers concepts, pictures and features.
        processes: How many processes train and make pictures; they share the CPU's threads.
        choices: What stands in the place of the file's own base, concepts and encoders.

    Raises:
        ConfigurationError: when the experiment, or the combination of its options, is not allowed.
        MissingExtraError: when matplotlib, or what the experiment's encoder needs, is not installed.
        DatasetError: when a concept's folder cannot be used.
        CapacityError: when a layer has no room for all concepts; nothing is trained then.
        PromptError: when a prompt cannot be read, such as one of foreign syntax; likewise.
    """
    checked("processes", processes, int, Limits(lowest=1))
    check_charts()
    choices = choices or Choices()
    experiment = load_experiment(Path(path), choices)
    base = choices.load(experiment)
    experiment = experiment.on(base)
    if experiment.resolution is not None:
        latent_pixel = Limits(lowest=base.family.pixels_per_latent)
        checked("resolution", experiment.resolution, int, latent_pixel)
    check_capacity(experiment, base)
    check_pictures(experiment, base)
    workspace, parts = Workspace(base, Path(work)), experiment.parts
    encoders = [part.encoder.build() for part in parts]  # what is missing is told before anything is trained
    references = [read_references(part.comparable, encoder) for part, encoder in zip(parts, encoders, strict=True)]
    measured: list[ExperimentResult] = []
    for part, encoder, real in zip(parts, encoders, references, strict=True):
        if processes > 1:
            yield from fill(part, choices, real, work=Path(work), processes=processes)
        result, studies = yield from _measured(part, workspace, encoder, real)
        write_result(result, Path(results))
        write_sheet(part, studies, Path(results))
        measured.append(result)
    if experiment.further_encoders:
        write_text(Path(results) / f"{experiment.name}.md", side_by_side(experiment, measured))
    suffix = "md" if experiment.further_encoders else "json"
    yield BenchmarkEvent("report", 1, 1, str(Path(results) / f"{experiment.name}.{suffix}"))


def _measured(
    experiment: Experiment, workspace: Workspace, encoder: Encoder, references: Mapping[str, References]
) -> Generator[BenchmarkEvent, None, tuple[ExperimentResult, list[StudyResults]]]:
    """Train, picture and measure what one encoder reads; what is there is taken from the work folder."""
    text = text_reader(encoder, workspace.base, experiment.measured_prompts)
    studies: list[StudyResults] = []
    pairs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    for done, (variant, seed) in enumerate(pairs, start=1):
        study = Study(experiment, workspace, encoder, text, variant, seed)
        files = yield from study.train(experiment.trained)
        studies.append((yield from study.results(files, references)))
        yield BenchmarkEvent("measure", done, len(pairs), f"{variant.name}, seed {seed}")
    result = ExperimentResult(
        experiment=experiment,
        base=workspace.base.identity,
        encoder=encoder.name,
        text=text.name if text else None,
        real_text={source.name: text.real(source) if text else None for source in experiment.measured},
        references=references,
        measurements=tuple(row for part in studies for row in part.measurements),
        seconds=tuple(part.seconds for part in studies),
        together=tuple(row for part in studies for row in part.together),
        crosstalk=tuple(row for part in studies for row in part.crosstalk),
    )
    return result, studies


def write_sheet(experiment: Experiment, studies: Sequence[StudyResults], folder: Path) -> None:
    """Write `NAME.jpg`, or remove that of an experiment that asked for it once.

    The blocks of all variants are joined, row below row, under the concepts' real pictures; what all show stands there
    once.
    """
    path = folder / f"{experiment.name}.jpg"
    if not experiment.sheet:
        path.unlink(missing_ok=True)
        return
    of_first = [study.blocks for study in studies if study.seconds.seed == experiment.seeds[0]]
    concepts, *tables = [
        Block(parts[0].title, {label: row for part in parts for label, row in part.rows.items()})
        for parts in zip(*of_first, strict=True)
    ]
    real = {source.name: source.split().held_out[0] for source in experiment.measured}
    write_contact_sheet([Block(concepts.title, {"real": real, **concepts.rows}), *tables], path)


def check_capacity(experiment: Experiment, base: Base) -> None:
    """Refuse concepts that a layer has no room for before any is trained."""
    for variant in experiment.variants:
        configs = [experiment.training_config(variant, concept, experiment.seeds[0]) for concept in experiment.trained]
        slots = [config.slot if isinstance(config.slot, int) else 0 for config in configs]
        highest = slots.index(max(slots))
        name = experiment.trained[highest].name
        try:
            check_layers(base, configs[highest], name)
        except CapacityError as error:
            raise CapacityError(f"variant {variant.name!r}, concept {name}: {error}") from error


def check_pictures(experiment: Experiment, base: Base) -> None:
    """Refuse pictures that the base cannot make before any concept is trained for them.

    Prompts are read as when pictures are made, with as many tokens of every concept as it will have.

    Raises:
        ConfigurationError: for more denoising steps than the base has.
        PromptError: for a prompt that cannot be read; names variant and prompt.
        MissingExtraError: for a prompt with weights, or a long one, without the package that reads it.
    """
    base.check_inference_steps("pictures num_inference_steps", experiment.pictures.num_inference_steps)
    checked_forms: set[tuple[int, str]] = set()
    for variant in experiment.variants:
        config = experiment.training_config(variant, experiment.trained[0], experiment.seeds[0])
        form = (config.num_vectors, config.trigger_form)
        if form in checked_forms:
            continue
        checked_forms.add(form)
        with base.with_tokens(_empty_tokens(base, experiment, config.num_vectors)):
            for key, texts in _texts(experiment, config.trigger_form).items():
                for text in sorted(texts):
                    try:
                        base.family.requested(read_prompt(text, base.tokens, key=key))
                    except PromptError as error:
                        raise PromptError(f"variant {variant.name!r}: {error}") from error


def _empty_tokens(base: Base, experiment: Experiment, num_vectors: int) -> dict[str, Token]:
    """The tokens of the measured concepts, which learn nothing."""
    vectors = base.family.words.split(torch.zeros(base.family.words.width, dtype=torch.float32))
    names = [name for source in experiment.measured for name in token_names(source.name, num_vectors)]
    return dict.fromkeys(names, Vector(vectors))


def _texts(experiment: Experiment, trigger_form: str) -> dict[str, set[str]]:
    """The prompts of all pictures, by what they are called in errors."""
    tokens = {source.name: f"<{source.name}>" for source in experiment.measured}
    if trigger_form != "token":
        tokens = {source.name: f"<{source.name}> {source.class_word}" for source in experiment.measured}
    plain = {source.name: with_article(source.class_word) for source in experiment.measured}
    texts: set[str] = set()
    for names in (tokens, plain):  # the concepts, and what the base is asked for in their place
        for source in experiment.measured:
            texts |= {*fill_prompts(experiment.prompts[source.kind], names[source.name])}
        for table in experiment.together:
            for combination in experiment.combinations[table.name]:
                texts |= {*table.fill([names[name] for name in combination.shown])}
    return {"prompt": texts, "negative_prompt": {experiment.pictures.negative_prompt}}
