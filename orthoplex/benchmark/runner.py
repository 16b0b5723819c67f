"""Compute an experiment, or what of it is missing, and write its result."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from orthoplex.adapters import create_adapter
from orthoplex.benchmark.checks import check, whole_numbers
from orthoplex.benchmark.crosstalk import LayerCrosstalk
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.experiment import Experiment, load_experiment
from orthoplex.benchmark.measurement import Measurement, read_references
from orthoplex.benchmark.parallel import fill
from orthoplex.benchmark.report import ExperimentResult, Seconds, write_result
from orthoplex.benchmark.study import Study
from orthoplex.benchmark.text import text_reader
from orthoplex.benchmark.together import TogetherMeasurement
from orthoplex.benchmark.workspace import Workspace
from orthoplex.errors import CapacityError
from orthoplex.models import Base, load_base


def run(
    path: str | Path, *, results: str | Path, work: str | Path, processes: int = 1
) -> Generator[BenchmarkEvent, None, None]:
    """Compute the experiment of a TOML file and write its tables and pictures into a results folder.

    These are `NAME.json`, and from its numbers `NAME.md`, `NAME.svg`, `NAME-recognised.svg` and, where the experiment
    asks for it, `NAME-together.svg` and `NAME-crosstalk.svg`.

    Only what is missing in the work folder is computed; a stopped run goes on where it was.

    Args:
        path: The experiment (see `load_experiment`).
        results: Folder of the result files.
        work: Folder that remembers concepts, pictures and features.
        processes: How many processes train and make pictures; they share the CPU's threads.

    Raises:
        ConfigurationError: when the experiment, or the combination of its options, is not allowed.
        DatasetError: when a concept's folder cannot be used.
        CapacityError: when a layer has no room for all concepts; nothing is trained then.
    """
    check("processes", processes, whole_numbers(1))
    experiment = load_experiment(Path(path))
    base = load_base(experiment.base)
    check("resolution", experiment.resolution, whole_numbers(base.pipeline.vae_scale_factor))  # one latent pixel
    check_capacity(experiment, base)
    workspace = Workspace(base, Path(work))
    encoder = experiment.encoder.build()
    text = text_reader(encoder, base, experiment.prompts)
    references = read_references(experiment.concepts, encoder)
    if processes > 1:
        yield from fill(experiment, references, work=Path(work), processes=processes)
    rows: list[Measurement] = []
    seconds: list[Seconds] = []
    together: list[TogetherMeasurement] = []
    crosstalk: list[LayerCrosstalk] = []
    pairs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    for done, (variant, seed) in enumerate(pairs, start=1):
        study = Study(experiment, workspace, encoder, text, variant, seed)
        files = yield from study.train(experiment.trained)
        measured, spent = yield from study.measure(files, references)
        rows += measured
        seconds.append(spent)
        together += yield from study.together(files, references)
        crosstalk += study.crosstalk(files)
        yield BenchmarkEvent("measure", done, len(pairs), f"{variant.name}, seed {seed}")
    result = ExperimentResult(
        experiment=experiment,
        base=base.identity,
        encoder=encoder.name,
        text=text.name if text else None,
        real_text={source.name: text.real(source) if text else None for source in experiment.measured},
        references=references,
        measurements=tuple(rows),
        seconds=tuple(seconds),
        together=tuple(together),
        crosstalk=tuple(crosstalk),
    )
    write_result(result, Path(results))
    yield BenchmarkEvent("report", 1, 1, str(Path(results) / f"{experiment.name}.json"))


def check_capacity(experiment: Experiment, base: Base) -> None:
    """Refuse concepts that a layer has no room for before any is trained."""
    for variant in experiment.variants:
        configs = [experiment.training_config(variant, concept, experiment.seeds[0]) for concept in experiment.trained]
        if configs[0].layers == "none":
            continue
        slots = [config.slot if isinstance(config.slot, int) else 0 for config in configs]
        highest = slots.index(max(slots))
        config, last = configs[highest], experiment.trained[highest]
        for layer, linear in base.linear_layers(config.layers, config.text_encoder).items():
            shape = {"out_features": linear.out_features, "in_features": linear.in_features}
            try:
                create_adapter(config.adapter, layer=layer, concept_id=last.name, seed=config.seed, **shape)
            except CapacityError as error:
                raise CapacityError(f"variant {variant.name!r}, concept {last.name}: {error}") from error
