"""Compute an experiment, or what of it is missing, and write its result."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, cat

from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.experiment import PLACEHOLDER, Experiment, Variant, load_experiment
from orthoplex.benchmark.measurement import Measurement, References, Shown, measure, read_references
from orthoplex.benchmark.report import ExperimentResult, Seconds, write_result
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.workspace import PictureSet, TrainedConcept, Workspace
from orthoplex.concepts import Concept, load_concept
from orthoplex.evaluation import Encoder
from orthoplex.merging import Merge, merge
from orthoplex.models import load_base
from orthoplex.training import with_article


def run(path: str | Path, *, results: str | Path, work: str | Path) -> Generator[BenchmarkEvent, None, None]:
    """Compute the experiment of a TOML file and write `NAME.json`, `NAME.md` and `NAME.svg` into a results folder.

    Only what is missing in the work folder is computed; a stopped run goes on where it was.

    Args:
        path: The experiment (see `load_experiment`).
        results: Folder of the result files.
        work: Folder that remembers concepts, pictures and features.

    Raises:
        ConfigurationError: when the experiment, or the combination of its options, is not allowed.
        DatasetError: when a concept's folder cannot be used.
    """
    experiment = load_experiment(Path(path))
    workspace = Workspace(load_base(experiment.base), Path(work))
    encoder = experiment.encoder.build()
    references = read_references(experiment.concepts, encoder)
    trained = yield from _train_all(experiment, workspace)
    rows: list[Measurement] = []
    seconds: list[Seconds] = []
    pairs = [(variant, seed) for variant in experiment.variants for seed in experiment.seeds]
    for done, (variant, seed) in enumerate(pairs, start=1):
        files = [trained[variant.name, seed, concept.name] for concept in experiment.concepts]
        study = _Study(experiment, workspace, encoder, variant, seed)
        measured, spent = yield from study.measure(files, references)
        rows += measured
        seconds.append(spent)
        yield BenchmarkEvent("measure", done, len(pairs), f"{variant.name}, seed {seed}")
    result = ExperimentResult(
        experiment, workspace.base.identity, encoder.name, references, tuple(rows), tuple(seconds)
    )
    write_result(result, Path(results))
    yield BenchmarkEvent("report", 1, 1, str(Path(results) / f"{experiment.name}.json"))


def fill_prompts(prompts: Sequence[str], trigger: str) -> tuple[str, ...]:
    """Put what a concept is called, or its class word, in the place of `{trigger}`."""
    return tuple(prompt.replace(PLACEHOLDER, trigger) for prompt in prompts)


def _train_all(
    experiment: Experiment, workspace: Workspace
) -> Generator[BenchmarkEvent, None, dict[tuple[str, int, str], TrainedConcept]]:
    """Every concept of every variant and seed; variants that train alike share their files."""
    jobs = [
        (variant, seed, concept)
        for seed in experiment.seeds
        for variant in experiment.variants
        for concept in experiment.concepts
    ]
    trained = {}
    for number, (variant, seed, concept) in enumerate(jobs, start=1):
        trained[variant.name, seed, concept.name] = yield from workspace.concept(
            concept,
            experiment.training_config(variant, concept, seed),
            resolution=experiment.resolution,
            message=f"{concept.name}, {variant.name}, seed {seed} ({number} of {len(jobs)})",
        )
    return trained


@dataclass(frozen=True)
class _Study:
    """One variant with one seed."""

    experiment: Experiment
    workspace: Workspace
    encoder: Encoder
    variant: Variant
    seed: int

    def measure(
        self, files: Sequence[TrainedConcept], references: Mapping[str, References]
    ) -> Generator[BenchmarkEvent, None, tuple[list[Measurement], Seconds]]:
        """Make the pictures of the base, of each concept alone and of the merge of all, and measure them."""
        concepts = [load_concept(file.path, base=self.workspace.base.identity) for file in files]
        together = merge([(c, 1.0) for c in concepts], algorithm=self.variant.algorithm, scale=self.variant.scale)
        shown: dict[str, Shown] = {}
        spent = 0.0
        merged_sets = yield from self._merged(concepts, together)
        for source, concept in zip(self.experiment.concepts, concepts, strict=True):
            alone = merge([(concept, 1.0)])
            base = yield from self._pictures(None, source, with_article(source.class_word))
            single = yield from self._pictures(alone, source, concept.manifest.trigger)
            merged = merged_sets[source.name]
            spent += sum(pictures.seconds for pictures in (*single, *merged))
            shown[source.name] = Shown(self._features(base), self._features(single), self._features(merged))
        rows = measure(self.variant.name, self.seed, shown, references)
        return rows, Seconds(self.variant.name, self.seed, sum(file.seconds for file in files), spent)

    def _merged(
        self, concepts: Sequence[Concept], together: Merge
    ) -> Generator[BenchmarkEvent, None, dict[str, tuple[PictureSet, ...]]]:
        """All prompts of all concepts in one go, so that the merge is folded once."""
        prompts = {
            source.name: fill_prompts(self.experiment.prompts[source.kind], concept.manifest.trigger)
            for source, concept in zip(self.experiment.concepts, concepts, strict=True)
        }
        flat = [prompt for group in prompts.values() for prompt in group]
        message = f"merge of {len(concepts)}, {self.variant.name}, seed {self.seed}"
        sets = yield from self.workspace.pictures(together, flat, self.experiment.pictures, message=message)
        found = iter(sets)
        return {name: tuple(next(found) for _ in group) for name, group in prompts.items()}

    def _pictures(
        self, merged: Merge | None, source: ConceptSource, trigger: str
    ) -> Generator[BenchmarkEvent, None, tuple[PictureSet, ...]]:
        prompts = fill_prompts(self.experiment.prompts[source.kind], trigger)
        what = "the base" if merged is None else f"{source.name} alone, {self.variant.name}, seed {self.seed}"
        settings = self.experiment.pictures
        return (yield from self.workspace.pictures(merged, prompts, settings, message=what))

    def _features(self, sets: Sequence[PictureSet]) -> Tensor:
        return cat([self.workspace.features(pictures, self.encoder) for pictures in sets])
