"""What the demo shows: which pictures, of what, measured and arranged."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.gallery import Combination, Gallery, Row
from orthoplex.benchmark.measurement import References, Shown, measure
from orthoplex.benchmark.settings import EncoderSettings, PictureSettings
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.study import fill_prompts
from orthoplex.benchmark.summary import Summary, summarise
from orthoplex.benchmark.workspace import PictureSet, Workspace
from orthoplex.concepts import Concept
from orthoplex.evaluation import Encoder
from orthoplex.merging import Merge, merge
from orthoplex.training import with_article


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does with it.

    Attributes:
        live: Concepts that are trained now; empty takes the first person, subject and style.
        prompts: Kind -> prompt of the pictures that are compared.
        combinations: Prompts of several concepts: `{person}` is the next person's trigger, and so on.
        pictures: How compared pictures are made; all of them are measured.
        num_combined: Pictures of every combination.
        num_shown: Pictures of every cell of the gallery.
        encoder: What they are measured with.
    """

    live: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(
        default_factory=lambda: {
            "person": "a photo of {trigger} in a city street",
            "subject": "a photo of {trigger} in a forest",
            "scene": "a photo of {trigger}",
            "style": "a cat in a meadow, {trigger}",
            "other": "a photo of {trigger}",
        }
    )
    combinations: tuple[str, ...] = (
        "{person} in {scene}",
        "{subject} in {scene}",
        "{person} in {scene}, {style}",
        "{subject} in {scene}, {style}",
        "{person} in a forest, {style}",
        "{subject} in a desert, {style}",
    )
    pictures: PictureSettings = PictureSettings()
    num_combined: int = 2
    num_shown: int = 2
    encoder: EncoderSettings = EncoderSettings()


@dataclass(frozen=True, eq=False)
class MergedMethod:
    """All concepts trained by one method, each alone and merged."""

    concepts: Mapping[str, Concept]
    together: Merge
    seconds: float


Compared = Mapping[tuple[str, str], PictureSet]
"""(concept, state) -> pictures; states are `base`, and `METHOD alone` and `METHOD merged` of every method."""


@dataclass(frozen=True)
class Stand:
    """Makes, measures and arranges the pictures."""

    workspace: Workspace
    settings: DemoSettings
    concepts: tuple[ConceptSource, ...]

    def compared(
        self, methods: Mapping[str, MergedMethod]
    ) -> Generator[BenchmarkEvent, None, dict[tuple[str, str], PictureSet]]:
        """Every concept's prompt: the base, and by every method the concept alone and in the merge."""
        found: dict[tuple[str, str], PictureSet] = {}
        settings = self.settings.pictures
        plain = [self._prompt(concept, with_article(concept.class_word)) for concept in self.concepts]
        base = yield from self.workspace.pictures(None, plain, settings, message="the base alone")
        found.update({(concept.name, "base"): one for concept, one in zip(self.concepts, base, strict=True)})
        for name, method in methods.items():
            triggers = {concept.name: method.concepts[concept.name].manifest.trigger for concept in self.concepts}
            prompts = [self._prompt(concept, triggers[concept.name]) for concept in self.concepts]
            message = f"merge of {len(prompts)}, {name}"
            merged = yield from self.workspace.pictures(method.together, prompts, settings, message=message)
            for concept, prompt, pictures in zip(self.concepts, prompts, merged, strict=True):
                alone = merge([(method.concepts[concept.name], 1.0)])
                message = f"{concept.name} alone, {name}"
                (single,) = yield from self.workspace.pictures(alone, [prompt], settings, message=message)
                found[concept.name, f"{name} alone"] = single
                found[concept.name, f"{name} merged"] = pictures
        return found

    def combined(
        self, methods: Mapping[str, MergedMethod]
    ) -> Generator[BenchmarkEvent, None, dict[str, tuple[PictureSet, ...]]]:
        """Pictures that hold several concepts, by every method."""
        settings = replace(self.settings.pictures, num_images=self.settings.num_combined)
        found = {}
        for name, method in methods.items():
            triggers = {
                kind: [method.concepts[c.name].manifest.trigger for c in self.concepts if c.kind == kind]
                for kind in dict.fromkeys(concept.kind for concept in self.concepts)
            }
            prompts = combine_prompts(self.settings.combinations, triggers)
            message = f"several concepts at once, {name}"
            found[name] = yield from self.workspace.pictures(method.together, prompts, settings, message=message)
        return found

    def summary(
        self, method: str, pictures: Compared, references: Mapping[str, References], encoder: Encoder
    ) -> Summary:
        """Measure one method's pictures."""
        shown, size, names = {}, len(self.concepts), frozenset(concept.name for concept in self.concepts)
        for concept in self.concepts:
            states = ("base", f"{method} alone", f"{method} merged")
            base, alone, merged = (self.workspace.features(pictures[concept.name, s], encoder) for s in states)
            shown[concept.name] = Shown(base, alone, {size: merged}, {size: names - {concept.name}})
        return summarise(measure(method, 0, shown, references))

    def seconds_per_picture(self, pictures: Compared) -> float:
        """Mean seconds of a compared picture."""
        sets = list({one.folder: one for one in pictures.values()}.values())
        return sum(one.seconds for one in sets) / sum(len(one.files) for one in sets)

    def gallery(
        self,
        folder: Path,
        live: Sequence[str],
        pictures: Compared,
        combined: Mapping[str, Sequence[PictureSet]],
        summaries: Sequence[Summary],
        seconds: Mapping[str, float],
    ) -> Gallery:
        """Copy what is shown into the gallery's folder and arrange it."""
        shelf = _Shelf(folder, self.settings.num_shown)
        rows = tuple(
            Row(
                name=concept.name,
                kind=concept.kind,
                prompt=pictures[concept.name, "orthogonal merged"].prompt,
                live=concept.name in live,
                references=shelf.put(f"{concept.name}-reference", concept.split().held_out),
                alone=shelf.put(f"{concept.name}-alone", pictures[concept.name, "orthogonal alone"].files),
                merged=shelf.put(f"{concept.name}-merged", pictures[concept.name, "orthogonal merged"].files),
                lora=shelf.put(f"{concept.name}-lora", pictures[concept.name, "lora merged"].files),
            )
            for concept in self.concepts
        )
        pairs = zip(combined["orthogonal"], combined["lora"], strict=True)
        combinations = tuple(
            Combination(
                prompt=ours.prompt,
                merged=shelf.put(f"combination-{number}-merged", ours.files),
                lora=shelf.put(f"combination-{number}-lora", theirs.files),
            )
            for number, (ours, theirs) in enumerate(pairs)
        )
        return Gallery(rows, combinations, tuple(summaries), seconds)

    def _prompt(self, concept: ConceptSource, trigger: str) -> str:
        return fill_prompts([self.settings.prompts[concept.kind]], trigger)[0]


@dataclass(frozen=True)
class _Shelf:
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
    """Fill `{person}`, `{subject}`, `{scene}`, `{style}` with triggers in turn, so that all concepts get theirs.

    Args:
        templates: Prompts; one that names a kind without concepts is left out.
        triggers: Kind -> what its concepts are called.
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
