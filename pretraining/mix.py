"""What pictures hold, and how often: the mix that prompts are measured on, and the one that the next base learns from.

`MEASURED` is the mix of the base that ships; the pool, the samples and prompt-following are made of it and stay as they
are. `NEXT` has people in half of its pictures, with large faces, two things in a third, one leading drawing family and
simple scenes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pretraining.vocabulary import FAMILIES, PEOPLE_STYLES, SCENES

#: kind and place -> left, top and side in pixels
Places = Mapping[tuple[str, str], tuple[int, int, int]]

#: sides in pixels of things on the grid, alone and in pairs, each as likely as it is listed; the others are up to 8
#: pixels larger or smaller
SIDES = {("subject", 1): (64, 96, 96, 96), ("person", 1): (104, 120), ("subject", 2): (64,), ("person", 2): (72,)}
#: where a thing usually stands: what a prompt that names no place should give
USUAL: Places = {
    ("subject", "middle"): (16, 24, 96),
    ("person", "middle"): (8, 16, 112),
    ("subject", "left"): (0, 48, 64),
    ("subject", "right"): (64, 48, 64),
    ("person", "left"): (0, 56, 72),
    ("person", "right"): (56, 56, 72),
}
#: share of things in their usual place, and of scenes in their usual view, in the measured mix
USUALLY = 0.85
#: share of pictures of two things whose captions state which is left and which right, in the measured mix
SIDED = 1 / 3


@dataclass(frozen=True, eq=False)
class Mix:
    """Shares of what pictures hold.

    Attributes:
        families: Of drawing families, by name.
        people_styles: Of people's drawing styles, by name.
        nothing: Of pictures that show a scene alone.
        two: Of pictures with two things.
        person: Of people among single things.
        pairs: The kinds of two things, left and right; each entry is as likely as the others.
        panoramas: Of photographed scenes; None where every scene is as likely as the others.
        usual_place: Of things in their usual place.
        usual_view: Of scenes in their usual view.
        usual: The usual places.
        close: True if people are cut to head and shoulders, so that their faces are large.
        sided: Of pictures of two things, those whose captions state which is left and which right.
    """

    families: Mapping[str, float]
    people_styles: Mapping[str, float]
    nothing: float
    two: float
    person: float
    pairs: Sequence[tuple[str, str]]
    panoramas: float | None
    usual_place: float
    usual_view: float
    usual: Places
    close: bool
    sided: float

    def kinds(self, rng: random.Random) -> tuple[str, ...]:
        """The kinds of things in a picture, from left to right: person or subject."""
        draw = rng.random()
        if draw < self.nothing:
            return ()
        if draw < 1 - self.two:
            return ("person" if rng.random() < self.person else "subject",)
        return rng.choice(self.pairs)

    def scene(self, rng: random.Random) -> str:
        """The words of a scene."""
        names = list(SCENES)
        if self.panoramas is not None:
            kind = "panorama" if rng.random() < self.panoramas else "background"
            names = [name for name in names if SCENES[name][0] == kind]
        return rng.choice(names)

    def family(self, rng: random.Random) -> str:
        """A drawing family."""
        return rng.choices(list(self.families), list(self.families.values()))[0]


def _pairs(**counts: int) -> tuple[tuple[str, str], ...]:
    """As many entries of each pair of kinds as stated, such as `subject_person=2`."""
    return tuple(tuple(names.split("_")) for names, count in counts.items() for _ in range(count))


MEASURED = Mix(
    families=FAMILIES,
    people_styles=PEOPLE_STYLES,
    nothing=0.06,
    two=0.24,
    person=0.25,
    pairs=_pairs(subject_subject=4, person_subject=1, subject_person=1),
    panoramas=None,
    usual_place=USUALLY,
    usual_view=USUALLY,
    usual=USUAL,
    close=False,
    sided=SIDED,
)
NEXT = Mix(
    families={"twemoji": 0.93, "noto": 0.02, "fluent": 0.015, "fluent3d": 0.015, "noto-v1": 0.01, "emojione": 0.01},
    people_styles={style: 0.916 if style == "toon-head" else 0.012 for style in PEOPLE_STYLES},
    nothing=0.04,
    two=1 / 3,
    person=0.375,
    pairs=_pairs(person_person=6, person_subject=5, subject_person=5, subject_subject=4),
    panoramas=0.08,
    usual_place=0.92,
    usual_view=0.97,
    usual={**USUAL, ("person", "middle"): (8, 8, 120)},
    close=True,
    sided=0.6,
)
