"""One variant of an experiment with one seed: its concepts, their pictures alone and merged, and measurements."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from torch import Tensor, cat

from orthoplex.activations import gather_inputs, with_article
from orthoplex.benchmark.contact_sheet import SEVERAL, Block
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.experiment import Experiment
from orthoplex.benchmark.experiment_result import Seconds
from orthoplex.benchmark.group_pictures import (
    Combination,
    CombinationViews,
    GroupMeasurement,
    GroupPictures,
    Views,
    measure_groups,
)
from orthoplex.benchmark.layer_crosstalk import LayerCrosstalk, measure_crosstalk
from orthoplex.benchmark.measurement import ConceptFeatures, ConceptText, Measurement, References, measure
from orthoplex.benchmark.merges import MergeGroup
from orthoplex.benchmark.settings import PLACEHOLDER, Variant
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.text_readers import TextReader
from orthoplex.benchmark.timed_merge import timed_merge
from orthoplex.benchmark.workspace import PictureSet, TrainedConcept, Workspace
from orthoplex.concepts import Concept, load_concept
from orthoplex.evaluation import Encoder
from orthoplex.merging import Merge, merge
from orthoplex.training import starting_tokens

IMPOSTORS, IMPOSTORS_SEED = 40, 1_000_000
"""Pictures of every prompt that thresholds of concepts in one picture are set on, and how far on their noise begins."""
_Result = TypeVar("_Result")


def finished(events: Generator[BenchmarkEvent, None, _Result]) -> _Result:
    """Run events to their end, unseen, and return what they return."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            return done.value


def fill_prompts(prompts: Sequence[str], trigger: str) -> tuple[str, ...]:
    """Return prompts with a concept's trigger, or its class word, in the place of `{trigger}`."""
    return tuple(prompt.replace(PLACEHOLDER, trigger) for prompt in prompts)


@dataclass(frozen=True)
class StudyResults:
    """The results of one variant with one seed.

    Attributes:
        measurements: One for every measured concept and size of merges.
        seconds: Its wall times.
        together: One for every combination of the experiment's tables `[[together]]`.
        crosstalk: One for every layer and concept, if the experiment asks for it.
        blocks: Of the sheet of pictures: the concepts, then the experiment's tables `[[together]]`.
    """

    measurements: list[Measurement]
    seconds: Seconds
    together: list[GroupMeasurement]
    crosstalk: list[LayerCrosstalk]
    blocks: list[Block]


@dataclass(frozen=True)
class ConceptPictures:
    """The pictures of one concept: one set for each prompt in turn.

    Attributes:
        base: Of the base, the class word in the concept's place.
        single: Of the concept alone.
        merged: Size of a merge -> of the merges of that size, one after the other.
    """

    base: tuple[PictureSet, ...]
    single: tuple[PictureSet, ...]
    merged: Mapping[int, Sequence[PictureSet]]

    @property
    def seconds(self) -> float:
        """Wall time of the pictures; those of the base do not count."""
        return sum(pictures.seconds for sets in (self.single, *self.merged.values()) for pictures in sets)


@dataclass(frozen=True)
class Study:
    """One variant with one seed; `text` reads text alignment, None without a reader."""

    experiment: Experiment
    workspace: Workspace
    encoder: Encoder
    text: TextReader | None
    variant: Variant
    seed: int

    def train(self, concepts: Sequence[ConceptSource]) -> Generator[BenchmarkEvent, None, tuple[TrainedConcept, ...]]:
        """Train the concepts named, or find them trained."""
        files = []
        for concept in concepts:
            config = self.experiment.training_config(self.variant, concept, self.seed)
            message = f"{concept.name}, {self.variant.name}, seed {self.seed}"
            own = self.workspace.base.family.resolution
            resolution = own if self.experiment.resolution is None else self.experiment.resolution
            files.append((yield from self.workspace.concept(concept, config, resolution=resolution, message=message)))
        return tuple(files)

    def results(
        self, files: Sequence[TrainedConcept], references: Mapping[str, References]
    ) -> Generator[BenchmarkEvent, None, StudyResults]:
        """Make all pictures that the experiment asks for, and measure them and the concepts.

        Args:
            files: One for every concept that is trained.
            references: Concept -> features of its real pictures.
        """
        concepts = self._loaded(files)
        pictured, merging = yield from self._picture(concepts)
        spent = sum(concept_pictures.seconds for concept_pictures in pictured.values())
        seconds = Seconds(self.variant.name, self.seed, sum(file.seconds for file in files), spent, merging)
        together, tables = yield from self._together(concepts, references)
        crosstalk = self._crosstalk(list(concepts.values()))
        return StudyResults(
            self._measure(pictured, references), seconds, together, crosstalk, [self._block(pictured), *tables]
        )

    def _picture(
        self, concepts: Mapping[str, Concept]
    ) -> Generator[BenchmarkEvent, None, tuple[dict[str, ConceptPictures], float]]:
        """Picture the base, each concept alone and the merges it is in; also the seconds of one of the largest."""
        merged: dict[str, dict[int, list[PictureSet]]] = {source.name: {} for source in self.experiment.measured}
        took: dict[int, list[float]] = {}
        for size, groups in self.experiment.groups.items():
            for group in groups:
                all_members, seconds = self._merged([concepts[name] for name in group.members])
                took.setdefault(size, []).append(seconds)
                for name, sets in (yield from self._group(group, concepts, all_members)).items():
                    merged[name].setdefault(size, []).extend(sets)
        pictured: dict[str, ConceptPictures] = {}
        for source in self.experiment.measured:
            concept = concepts[source.name]
            base = yield from self._pictures(None, source, with_article(source.class_word))
            single = yield from self._pictures(merge([(concept, 1.0)]), source, concept.manifest.trigger)
            pictured[source.name] = ConceptPictures(base, single, merged[source.name])
        return pictured, fmean(took[max(took)])

    def _measure(
        self, pictured: Mapping[str, ConceptPictures], references: Mapping[str, References]
    ) -> list[Measurement]:
        """Read the numbers off the pictures of all concepts that are measured."""
        shown: dict[str, ConceptFeatures] = {}
        for source in self.experiment.measured:
            pictures = pictured[source.name]
            features = {size: self._features(sets) for size, sets in pictures.merged.items()}
            met = {
                size: frozenset(name for group in groups if source.name in group.measured for name in group.members)
                - {source.name}
                for size, groups in self.experiment.groups.items()
            }
            base, single = self._features(pictures.base), self._features(pictures.single)
            shown[source.name] = ConceptFeatures(base, single, features, met, self._text(source, pictures))
        return measure(self.variant.name, self.seed, shown, references, identity_cosine=self.encoder.identity_cosine)

    def _block(self, pictured: Mapping[str, ConceptPictures]) -> Block:
        """The first picture of every concept: by the base, alone and in its first merge of every size."""
        rows: dict[str, dict[str, Path]] = {}
        for name, pictures in pictured.items():
            shown = {"the base": pictures.base, f"{self.variant.name}: alone": pictures.single}
            shown |= {f"{self.variant.name}: {size} merged": tuple(sets) for size, sets in pictures.merged.items()}
            for label, sets in shown.items():
                rows.setdefault(label, {})[name] = sets[0].files[0]
        return Block(self.experiment.name, rows)

    def _group(
        self, group: MergeGroup, concepts: Mapping[str, Concept], merged: Merge
    ) -> Generator[BenchmarkEvent, None, dict[str, tuple[PictureSet, ...]]]:
        """Picture the prompts of all that are measured in a merge, so that it is folded once."""
        kinds = {source.name: source.kind for source in self.experiment.concepts}
        prompts = {
            name: fill_prompts(self.experiment.prompts[kinds[name]], concepts[name].manifest.trigger)
            for name in group.measured
        }
        flat = [prompt for texts in prompts.values() for prompt in texts]
        message = f"merge of {len(group.members)}, {self.variant.name}, seed {self.seed}"
        sets = yield from self.workspace.pictures(merged, flat, self.experiment.pictures, message=message)
        remaining = iter(sets)
        return {name: tuple(next(remaining) for _ in texts) for name, texts in prompts.items()}

    def _loaded(self, files: Sequence[TrainedConcept]) -> dict[str, Concept]:
        """Return the trained concepts by name, reduced to the parts that the variant shows."""
        loaded = [load_concept(file.path, base=self.workspace.base.identity) for file in files]
        names = [source.name for source in self.experiment.trained]
        return {name: self._shown(concept) for name, concept in zip(names, loaded, strict=True)}

    def _shown(self, concept: Concept) -> Concept:
        if self.variant.parts == "tokens":
            return replace(concept, layers={})
        if self.variant.parts == "weights":
            tokens = starting_tokens(self.workspace.base, concept)
            return replace(concept, tokens=tokens, inputs=None)
        return concept

    def _merged(self, members: Sequence[Concept]) -> tuple[Merge, float]:
        """Merge concepts with the variant's algorithm; also return the seconds that a first merge takes."""
        variant, pairs = self.variant, [(concept, 1.0) for concept in members]
        merged, spent = timed_merge(
            self.workspace, pairs, algorithm=variant.algorithm, options=variant.options, scale=variant.scale
        )
        return merged, self.workspace.merge_seconds(merged, spent)

    def _together(
        self, concepts: Mapping[str, Concept], references: Mapping[str, References]
    ) -> Generator[BenchmarkEvent, None, tuple[list[GroupMeasurement], list[Block]]]:
        """Make the pictures of several concepts that the experiment asks for, and measure them.

        Returns:
            The numbers, and the first picture of every combination, one block for each table.
        """
        words = {source.name: with_article(source.class_word) for source in self.experiment.concepts}
        settings, rows, blocks = self.experiment.pictures, [], []
        for table in self.experiment.together:
            views: dict[Combination, CombinationViews] = {}
            first: dict[str, dict[str, Path]] = {}
            for combination in self.experiment.combinations[table.name]:
                merged, _ = self._merged([concepts[name] for name in combination.members])
                triggers = [concepts[name].manifest.trigger for name in combination.shown]
                message = f"{table.name}, {self.variant.name}, seed {self.seed}"
                shown = yield from self.workspace.pictures(merged, table.fill(triggers), settings, message=message)
                plain = table.fill([words[name] for name in combination.shown])
                base = yield from self.workspace.pictures(None, plain, settings, message="the base")
                alone = yield from self._alone(table, combination, concepts, words)
                views[combination] = CombinationViews(self._views(shown), alone, self._views(base))
                for label, sets in (
                    ("the base", base),
                    (f"{self.variant.name}: {len(combination.members)} merged", shown),
                ):
                    first.setdefault(label, {})[SEVERAL.join(combination.shown)] = sets[0].files[0]
            blocks.append(Block(table.name, first))
            rows += measure_groups(
                table,
                self.variant.name,
                self.seed,
                views,
                (yield from self._impostors(table)),
                references,
                {source.name: source.class_word for source in self.experiment.concepts},
                identity_cosine=self.encoder.identity_cosine,
            )
        return rows, blocks

    def _alone(
        self,
        table: GroupPictures,
        combination: Combination,
        concepts: Mapping[str, Concept],
        words: Mapping[str, str],
    ) -> Generator[BenchmarkEvent, None, tuple[Views, ...]]:
        """The pictures of each shown concept alone, class words in the others' places: their features."""
        views = []
        for place, name in enumerate(combination.shown):
            names = [words[other] for other in combination.shown]
            names[place] = concepts[name].manifest.trigger
            message = f"{name} alone, {table.name}, {self.variant.name}, seed {self.seed}"
            sets = yield from self.workspace.pictures(
                merge([(concepts[name], 1.0)]), table.fill(names), self.experiment.pictures, message=message
            )
            views.append(self._views(sets))
        return tuple(views)

    def _impostors(self, table: GroupPictures) -> Generator[BenchmarkEvent, None, dict[tuple[str, ...], Views]]:
        """The base's pictures of a table's prompts that thresholds are set on: class words -> features.

        They begin from other noise than the pictures that are measured.
        """
        words = {source.name: source.class_word for source in self.experiment.concepts}
        settings = self.experiment.pictures
        settings = replace(settings, num_images=IMPOSTORS, seed=settings.seed + IMPOSTORS_SEED)
        views = {}
        for combination in self.experiment.combinations[table.name]:
            class_words = tuple(words[name] for name in combination.shown)
            if class_words not in views:
                prompts = table.fill([with_article(word) for word in class_words])
                sets = yield from self.workspace.pictures(None, prompts, settings, message=f"impostors, {table.name}")
                views[class_words] = self._views(sets)
        return views

    def _crosstalk(self, concepts: Sequence[Concept]) -> list[LayerCrosstalk]:
        """Measure what the concepts' changes do to one another's inputs, if the experiment asks for it.

        Only variants that sum whole concepts at full strength are measured: other merges alter the changes
        themselves.
        """
        plain = self.variant.algorithm == "sum" and self.variant.parts == "both" and self.variant.scale == 1.0
        if not self.experiment.crosstalk or not plain:
            return []
        base = self.workspace.base
        inputs = gather_inputs(
            base, concepts, with_foreign=False, gather=lambda *asked: self.workspace.grams(*asked).grams
        )
        linears = base.family.every_layer()
        weights = {layer: linear.weight for layer, linear in linears.items()}
        groups = [group.members for group in self.experiment.groups[max(self.experiment.groups)]]
        return measure_crosstalk(self.variant.name, self.seed, concepts, groups, weights, inputs)

    def _views(self, sets: Sequence[PictureSet]) -> Views:
        return Views(cat([self.workspace.views(pictures, self.encoder) for pictures in sets], dim=1))

    def _pictures(
        self, merged: Merge | None, source: ConceptSource, trigger: str
    ) -> Generator[BenchmarkEvent, None, tuple[PictureSet, ...]]:
        prompts = fill_prompts(self.experiment.prompts[source.kind], trigger)
        message = "the base" if merged is None else f"{source.name} alone, {self.variant.name}, seed {self.seed}"
        settings = self.experiment.pictures
        return (yield from self.workspace.pictures(merged, prompts, settings, message=message))

    def _text(self, source: ConceptSource, pictured: ConceptPictures) -> ConceptText | None:
        """Text alignment of the pictures; None where none is read."""
        if self.text is None:
            return None
        templates, means = self.experiment.prompts[source.kind], []
        for sets in (pictured.base, pictured.single, *pictured.merged.values()):
            mean = self.text.mean(sets, templates, source, self.workspace)
            if mean is None:
                return None
            means.append(mean)
        return ConceptText(means[0], means[1], dict(zip(pictured.merged, means[2:], strict=True)))

    def _features(self, sets: Sequence[PictureSet]) -> Tensor:
        return cat([self.workspace.features(pictures, self.encoder) for pictures in sets])
