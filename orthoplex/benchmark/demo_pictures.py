"""The demo's pictures: made by every variant, measured, and arranged as a gallery."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orthoplex.activations import with_article
from orthoplex.benchmark.demo_settings import LORA_BEST, LORA_SUM, OURS, VARIANTS, DemoSettings, DemoVariant
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.gallery import CombinationRow, Row
from orthoplex.benchmark.measurement import ConceptFeatures, References, measure
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.study import fill_prompts
from orthoplex.benchmark.summary import Summary, summarise
from orthoplex.benchmark.workspace import PictureSet, Workspace
from orthoplex.concepts import Concept
from orthoplex.evaluation import Encoder
from orthoplex.merging import Merge, merge


@dataclass(frozen=True, eq=False)
class MergedConcepts:
    """All concepts of one variant, each alone and merged.

    Attributes:
        concepts: Concept name -> the concept.
        merge: The merge of all of them.
        seconds: Wall time of the merge, the inputs of layers that it needs and its fold included.
    """

    concepts: Mapping[str, Concept]
    merge: Merge
    seconds: float


Merged = Mapping[DemoVariant, MergedConcepts]
Compared = Mapping[tuple[str, str], PictureSet]
"""(concept, state) -> pictures; states are `base`, `METHOD alone` of a method and `VARIANT merged` of a variant."""


@dataclass(frozen=True)
class DemoPictures:
    """Makes, measures and arranges the pictures."""

    workspace: Workspace
    settings: DemoSettings
    concepts: tuple[ConceptSource, ...]

    def compared(self, variants: Merged) -> Generator[BenchmarkEvent, None, dict[tuple[str, str], PictureSet]]:
        """Every concept's prompt: by the base, and by every variant with the concept alone and in the merge."""
        settings = self.settings.pictures
        plain = [self._prompt(concept, with_article(concept.class_word)) for concept in self.concepts]
        base = yield from self.workspace.pictures(None, plain, settings, message="the base alone")
        sets = {(concept.name, "base"): pictures for concept, pictures in zip(self.concepts, base, strict=True)}
        for variant, merged in variants.items():
            triggers = {concept.name: merged.concepts[concept.name].manifest.trigger for concept in self.concepts}
            prompts = [self._prompt(concept, triggers[concept.name]) for concept in self.concepts]
            message = f"{len(prompts)} concepts merged, {variant.name}"
            merged_sets = yield from self.workspace.pictures(merged.merge, prompts, settings, message=message)
            for concept, prompt, pictures in zip(self.concepts, prompts, merged_sets, strict=True):
                sets[concept.name, f"{variant.name} merged"] = pictures
                state = (concept.name, f"{variant.method} alone")
                if state not in sets:
                    alone = merge([(merged.concepts[concept.name], 1.0)])
                    message = f"{concept.name} alone, {variant.method}"
                    (sets[state],) = yield from self.workspace.pictures(alone, [prompt], settings, message=message)
        return sets

    def combined(self, variants: Merged) -> Generator[BenchmarkEvent, None, dict[DemoVariant, tuple[PictureSet, ...]]]:
        """Pictures that hold several concepts, by every variant."""
        settings = replace(self.settings.pictures, num_images=self.settings.num_combined)
        sets = {}
        for variant, merged in variants.items():
            called: dict[str, list[str]] = {}
            for concept in self.concepts:
                trigger = merged.concepts[concept.name].manifest.trigger
                for name in (concept.kind, concept.name):
                    called.setdefault(name, []).append(trigger)
            prompts = combine_prompts(self.settings.combinations, called)
            message = f"several concepts at once, {variant.name}"
            sets[variant] = yield from self.workspace.pictures(merged.merge, prompts, settings, message=message)
        return sets

    def summary(
        self, variant: DemoVariant, pictures: Compared, references: Mapping[str, References], encoder: Encoder
    ) -> Summary:
        """Measure one variant's pictures."""
        shown, size, names = {}, len(self.concepts), frozenset(concept.name for concept in self.concepts)
        for concept in self.concepts:
            states = ("base", f"{variant.method} alone", f"{variant.name} merged")
            base, alone, merged = (self.workspace.features(pictures[concept.name, s], encoder) for s in states)
            shown[concept.name] = ConceptFeatures(base, alone, {size: merged}, {size: names - {concept.name}})
        return summarise(measure(variant.name, 0, shown, references))

    def seconds_per_picture(self, pictures: Compared) -> float:
        """Mean seconds of a compared picture."""
        by_folder = {item.folder: item for item in pictures.values()}.values()  # states share sets
        return sum(item.seconds for item in by_folder) / sum(len(item.files) for item in by_folder)

    def rows(self, folder: Path, live: Sequence[str], pictures: Compared) -> tuple[Row, ...]:
        """Copy every concept's pictures into the gallery's folder."""
        picture_folder = _PictureFolder(folder, self.settings.num_shown)
        columns = {
            "alone": f"{OURS.method} alone",
            "merged": f"{OURS.name} merged",
            "lora_sum": f"{LORA_SUM.name} merged",
            "lora_best": f"{LORA_BEST.name} merged",
        }
        return tuple(
            Row(
                name=concept.name,
                kind=concept.kind,
                prompt=pictures[concept.name, columns["merged"]].prompt,
                live=concept.name in live,
                real=picture_folder.put(f"{concept.name}-real", concept.split().held_out),
                **{
                    column: picture_folder.put(f"{concept.name}-{column}", pictures[concept.name, state].files)
                    for column, state in columns.items()
                },
            )
            for concept in self.concepts
        )

    def combinations(
        self, folder: Path, combined: Mapping[DemoVariant, Sequence[PictureSet]]
    ) -> tuple[CombinationRow, ...]:
        """Copy the pictures of several concepts into the gallery's folder."""
        picture_folder = _PictureFolder(folder, self.settings.num_shown)
        sets = zip(*(combined[variant] for variant in VARIANTS), strict=True)
        return tuple(
            CombinationRow(
                prompt=ours.prompt,
                merged=picture_folder.put(f"combination-{number}-merged", ours.files),
                lora_sum=picture_folder.put(f"combination-{number}-lora_sum", summed.files),
                lora_best=picture_folder.put(f"combination-{number}-lora_best", best.files),
            )
            for number, (ours, summed, best) in enumerate(sets)
        )

    def _prompt(self, concept: ConceptSource, trigger: str) -> str:
        return fill_prompts([self.settings.prompts[concept.kind]], trigger)[0]


@dataclass(frozen=True)
class _PictureFolder:
    """The gallery's own copies of its pictures."""

    folder: Path
    num_shown: int

    def put(self, name: str, files: Sequence[Path]) -> tuple[str, ...]:
        """Copy the first pictures as `pictures/NAME-0.png`, ...; returns their paths relative to the gallery."""
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
        placed = []
        for number, file in enumerate(files[: self.num_shown]):
            placed.append(f"pictures/{name}-{number}{file.suffix}")
            shutil.copyfile(file, self.folder / placed[-1])
        return tuple(placed)


def combine_prompts(templates: Sequence[str], triggers: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Fill `{person}`, `{subject}`, `{scene}`, `{style}` with triggers in turn, and `{NAME}` with a concept's trigger.

    Args:
        templates: Prompts; one that names something else is left out.
        triggers: Kind or concept name -> triggers.
    """
    used = dict.fromkeys(triggers, 0)
    prompts = []
    for template in templates:
        filled = template
        for kind, names in triggers.items():
            if f"{{{kind}}}" in filled and names:
                filled = filled.replace(f"{{{kind}}}", names[used[kind] % len(names)])
                used[kind] += 1
        if "{" not in filled:
            prompts.append(filled)
    return tuple(prompts)
