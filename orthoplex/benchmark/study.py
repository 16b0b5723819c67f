"""One variant of an experiment with one seed: its concepts, their pictures alone and merged, and what they measure."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, cat

from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.experiment import PLACEHOLDER, Experiment, Variant
from orthoplex.benchmark.measurement import Measurement, References, Shown, measure
from orthoplex.benchmark.report import Seconds
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.workspace import PictureSet, TrainedConcept, Workspace
from orthoplex.concepts import Concept, load_concept
from orthoplex.evaluation import Encoder
from orthoplex.merging import InputGrams, Merge, create_algorithm, merge
from orthoplex.training import gather_inputs, with_article

_Result = TypeVar("_Result")


def finished(events: Generator[BenchmarkEvent, None, _Result]) -> _Result:
    """Run events to their end, unseen, and return what they return."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            return done.value


def fill_prompts(prompts: Sequence[str], trigger: str) -> tuple[str, ...]:
    """Put what a concept is called, or its class word, in the place of `{trigger}`."""
    return tuple(prompt.replace(PLACEHOLDER, trigger) for prompt in prompts)


@dataclass(frozen=True)
class Study:
    """One variant with one seed."""

    experiment: Experiment
    workspace: Workspace
    encoder: Encoder
    variant: Variant
    seed: int

    def train(self, concepts: Sequence[ConceptSource]) -> Generator[BenchmarkEvent, None, tuple[TrainedConcept, ...]]:
        """Train the concepts named, or find them trained."""
        files = []
        for concept in concepts:
            config = self.experiment.training_config(self.variant, concept, self.seed)
            message = f"{concept.name}, {self.variant.name}, seed {self.seed}"
            resolution = self.experiment.resolution
            files.append((yield from self.workspace.concept(concept, config, resolution=resolution, message=message)))
        return tuple(files)

    def measure(
        self, files: Sequence[TrainedConcept], references: Mapping[str, References]
    ) -> Generator[BenchmarkEvent, None, tuple[list[Measurement], Seconds]]:
        """Make the pictures of the base, of each concept alone and of the merge of all, and measure them."""
        concepts = [load_concept(file.path, base=self.workspace.base.identity) for file in files]
        together = merge(
            [(c, 1.0) for c in concepts],
            algorithm=self.variant.algorithm,
            options=self.variant.options,
            scale=self.variant.scale,
            inputs=self._inputs(concepts),
        )
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

    def _inputs(self, concepts: Sequence[Concept]) -> InputGrams | None:
        """What the layers see, where the algorithm wants to know."""
        if not create_algorithm(self.variant.algorithm, self.variant.options).needs_inputs:
            return None
        return gather_inputs(self.workspace.base, concepts, gather=self.workspace.grams)

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
