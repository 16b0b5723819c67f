"""Pictures of random merges of the shipped concepts, as numbers: how much of each concept a plain sum keeps.

A set is two to six of the twelve sample concepts, each from its file of a plain LoRA or of orthogonal adaptation, at
strengths that are all 1 or drawn from three. Each member draws the same pictures alone, at its strength in the set, and
in the set.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from orthoplex import vignette
from orthoplex.activations import with_article
from orthoplex.benchmark import split_pictures
from orthoplex.concepts import KINDS, Concept, load_concept
from orthoplex.evaluation import MobileNetEncoder, image_alignment
from orthoplex.files import read_picture, write_json
from orthoplex.generation import generate
from orthoplex.merging import Merge, merge
from orthoplex.models import Base, load_base

POOLS = (("lora",), ("orthogonal",), ("lora", "orthogonal"))
SIZES = range(2, 7)
STRENGTHS = (0.7, 1.0, 1.3)
BLOCK = 40
"""Sets that are divided into two halves at a time; more sets leave the halves of the first ones as they are."""


@dataclass(frozen=True)
class Member:
    """One concept of a set.

    Attributes:
        name: A sample concept.
        method: The folder of its file, ``lora`` or ``orthogonal``.
        strength: Its strength in the set.
    """

    name: str
    method: str
    strength: float

    @property
    def key(self) -> str:
        """The member alone, as ``anna/lora@0.7``."""
        return f"{self.name}/{self.method}@{self.strength:g}"

    def concept(self) -> Concept:
        """The shipped concept."""
        return load_concept(vignette.concept_file(self.name, method=self.method))


def random_sets(count: int, seed: int) -> list[tuple[Member, ...]]:
    """Sets of members; every pool and every size occurs equally often, and every other set has mixed strengths.

    Args:
        count: How many.
        seed: Decides names, files and strengths.
    """
    names = [sample.name for sample in vignette.sample_concepts()]
    sets = []
    for number in range(count):
        rng = random.Random(f"conflicts/{seed}/{number}")
        pool, size = POOLS[number % len(POOLS)], SIZES[number % len(SIZES)]
        mixed = number % 2 == 1
        chosen = rng.sample(names, size)
        sets.append(tuple(Member(n, rng.choice(pool), rng.choice(STRENGTHS) if mixed else 1.0) for n in chosen))
    return sets


def halves_of(count: int, seed: int) -> tuple[list[int], list[int]]:
    """The numbers of the sets that calibrate and of those that test; the seed alone decides, block by block."""
    calibrating: set[int] = set()
    for block in range(0, count, BLOCK):
        chosen = random.Random(f"conflicts/halves/{seed + block // BLOCK}").sample(range(block, block + BLOCK), BLOCK)
        calibrating.update(chosen[: BLOCK // 2])
    return [n for n in range(count) if n in calibrating], [n for n in range(count) if n not in calibrating]


def _weaker(members: Sequence[Member]) -> Merge:
    return merge([(member.concept(), 0.7 * member.strength) for member in members], algorithm="sum")


def _by_ties(members: Sequence[Member]) -> Merge:
    return merge([(member.concept(), member.strength) for member in members], algorithm="ties")


CURES: dict[str, Callable[[Sequence[Member]], Merge]] = {
    "strengths times 0.7": _weaker,
    "ties": _by_ties,
}
"""Name of a cure -> the merge of a set with it."""


class Alignments:
    """Alignments with held-out pictures, from a file as far as it has them; new ones are written there at once.

    Args:
        path: JSON file, from a name to an alignment.
        num_images: Pictures for each number.
        steps: Denoising steps of a picture.
    """

    def __init__(self, path: Path, *, num_images: int, steps: int) -> None:
        self.path, self.num_images, self.steps = path, num_images, steps
        self.values: dict[str, float] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self._base: Base | None = None
        self._encoder = MobileNetEncoder(layer="bottleneck", picture_size=128)
        self._samples = {sample.name: sample for sample in vignette.sample_concepts()}
        self._references: dict[str, Tensor] = {}

    def alone(self, member: Member) -> float:
        """The alignment of a member without others, at its strength."""
        return self._value(member.key, member, lambda: merge([(member.concept(), member.strength)], algorithm="sum"))

    def without(self, member: Member) -> float:
        """The alignment of the base's pictures, the class word in the concept's place."""
        return self._value(member.name, member, None)

    def together(self, number: int, members: tuple[Member, ...]) -> Iterator[tuple[Member, float]]:
        """Every member of a set with its alignment in the set's plain sum."""
        pairs = [(member.concept(), member.strength) for member in members]
        for member in members:
            yield member, self._value(f"{number} {member.key}", member, lambda: merge(pairs, algorithm="sum"))

    def cured(self, cure: str, number: int, members: tuple[Member, ...]) -> Iterator[tuple[Member, float]]:
        """Every member of a set with its alignment after a cure.

        Args:
            cure: A name in ``CURES``.
            number: The number of the set.
            members: Its members.
        """
        made: list[Merge] = []
        for member in members:

            def merged() -> Merge:
                if not made:
                    made.append(CURES[cure](members))
                return made[0]

            yield member, self._value(f"{number} {member.key} {cure}", member, merged)

    @property
    def base(self) -> Base:
        """The embedded base, loaded when it is first asked for."""
        self._base = self._base or load_base("vignette")
        return self._base

    def _value(self, key: str, member: Member, merged: Callable[[], Merge] | None) -> float:
        if key not in self.values:
            self.values[key] = self._measured(member, None if merged is None else merged())
            write_json(self.path, self.values, indent=1)
        return self.values[key]

    def _measured(self, member: Member, merged: Merge | None) -> float:
        sample = self._samples[member.name]
        trigger = member.concept().manifest.trigger if merged else with_article(sample.class_word)
        drawn = generate(
            self.base,
            KINDS[sample.kind].captions[0].format(trigger=trigger),
            merge=merged,
            num_images=self.num_images,
            seed=100,
            num_inference_steps=self.steps,
            mixed_precision="auto",
            expect_names=False,
        )
        if member.name not in self._references:
            held_out = split_pictures(sample.folder).held_out
            self._references[member.name] = self._encoder.encode([read_picture(path) for path in held_out])
        return round(image_alignment(self._encoder.encode(drawn), self._references[member.name]), 5)
