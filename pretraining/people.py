"""People with a fixed identity: hair, beard, nose, glasses, clothes and colours stay; mouth, eyes and brows vary."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from pretraining.assets import person
from pretraining.vocabulary import HAIR_COLOURS, PEOPLE_STYLE_WORDS, PEOPLE_STYLES, SHIRT_COLOURS, SKIN_COLOURS

Variants = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Drawing:
    """What a DiceBear style calls its parts.

    `hair` is (colour option, variant option, variants), without variants that show none of the colour; `black_hair` are
    variants that are black whatever the colour. `fixed` never changes, `expression` varies between pictures of one
    person, `identity` between people; `glasses` and `beard` are (probability option, variants).
    """

    hair: tuple[str, str, Sequence[str]]
    skin: str
    shirt: str | None
    expression: Variants
    identity: Variants = field(default_factory=dict)
    glasses: tuple[str, Variants] | None = None
    beard: tuple[str, Variants] | None = None
    black_hair: Sequence[str] = ()
    same_colour_as_hair: Sequence[str] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)


def _numbered(word: str, count: int) -> list[str]:
    return [f"{word}{n:02d}" for n in range(1, count + 1)]


DRAWINGS: dict[str, Drawing] = {
    "micah": Drawing(
        hair=("hairColor", "hairVariant", "dannyPhantom fonze full mrT pixie turban".split()),
        skin="baseColor",
        shirt="shirtColor",
        expression={
            "mouthVariant": ["laughing", "smile", "smirk", "surprised", "pucker"],
            "eyesVariant": ["eyes", "round", "smiling"],
            "eyebrowsVariant": ["up", "down"],
        },
        glasses=("glassesProbability", {"glassesVariant": ["round", "square"]}),
        beard=("facialHairProbability", {"facialHairVariant": ["beard"]}),
        same_colour_as_hair=("facialHairColor", "eyebrowsColor"),
        fixed={"earringsProbability": 0},
    ),
    "toon-head": Drawing(
        hair=("hairColor", "hairVariant", "bun sideComed spiky undercut".split()),
        skin="skinColor",
        shirt="clothesColor",
        expression={
            "mouthVariant": ["agape", "laugh", "smile", "sad"],
            "eyesVariant": ["happy", "wide", "wink", "humble"],
            "eyebrowsVariant": ["happy", "neutral", "raised"],
        },
        beard=("beardProbability", {"beardVariant": ["fullBeard", "longBeard"]}),
    ),
    "personas": Drawing(
        hair=(
            "hairColor",
            "hairVariant",
            "bobBangs bobCut curly curlyBun curlyHighTop extraLong fade long mohawk pigtails".split(),
        ),
        skin="skinColor",
        shirt="clothingColor",
        expression={
            "mouthVariant": ["bigSmile", "smile", "smirk", "surprise", "frown"],
            "eyesVariant": ["happy", "open", "wink"],
        },
        beard=("facialHairProbability", {"facialHairVariant": ["beardMustache", "goatee"]}),
        same_colour_as_hair=("facialHairColor",),
    ),
    "open-peeps": Drawing(
        hair=(
            "headContrastColor",
            "headVariant",
            "bangs grayBun grayMedium grayShort mohawk short4".split(),
        ),
        black_hair="afro bangs2 bun bun2 buns cornrows2 dreads1 flatTop flatTopLong long longAfro longBangs longCurly "
        "medium1 medium2 medium3 mediumBangs mediumStraight pomp shaved1 short1 short2 short3 short5 twists "
        "twists2".split(),
        skin="skinColor",
        shirt="clothingColor",
        expression={"expressionVariant": "smile smileBig calm cheeky cute awe driven lovingGrin1".split()},
        glasses=("accessoriesProbability", {"accessoriesVariant": ["glasses", "glasses2", "glasses3"]}),
        beard=("facialHairProbability", {"facialHairVariant": ["full", "full2", "goatee1"]}),
        fixed={"maskProbability": 0},
    ),
    "adventurer": Drawing(
        hair=("hairColor", "hairVariant", [*_numbered("long", 26), *_numbered("short", 18)]),
        skin="skinColor",
        shirt=None,
        expression={
            "mouthVariant": [f"variant{n:02d}" for n in (2, 9, 16, 19, 22, 24, 25, 30)],
            "eyesVariant": [f"variant{n:02d}" for n in (1, 4, 12, 20, 23, 26)],
            "eyebrowsVariant": [f"variant{n:02d}" for n in (3, 10, 14)],
        },
        glasses=("glassesProbability", {"glassesVariant": [f"variant{n:02d}" for n in (1, 2, 3)]}),
        fixed={"earringsProbability": 0, "detailsProbability": 0},
    ),
    "big-smile": Drawing(
        hair=(
            "hairColor",
            "hairVariant",
            "bangs bowlCutHair braids bunHair curlyBob curlyShortHair froBun halfShavedHead mohawk shortHair "
            "straightHair wavyBob".split(),
        ),
        skin="skinColor",
        shirt=None,
        expression={
            "mouthVariant": ["awkwardSmile", "gapSmile", "kawaii", "openedSmile", "teethSmile"],
            "eyesVariant": ["cheery", "normal", "winking", "sleepy"],
        },
        glasses=("accessoriesProbability", {"accessoriesVariant": ["glasses"]}),
    ),
    "pixel-art": Drawing(
        hair=("hairColor", "hairVariant", [*_numbered("long", 21), *_numbered("short", 24)]),
        skin="skinColor",
        shirt="clothingColor",
        expression={"mouthVariant": _numbered("happy", 13), "eyesVariant": _numbered("variant", 12)},
        identity={"clothesVariant": _numbered("variant", 23)},
        glasses=("glassesProbability", {"glassesVariant": ["dark01", "dark02", "dark03", "dark04"]}),
        beard=("beardProbability", {"beardVariant": ["variant01", "variant02", "variant03", "variant04"]}),
        fixed={"accessoriesProbability": 0, "hatProbability": 0},
    ),
    "miniavs": Drawing(
        hair=("hairColor", "hairVariant", "classic01 classic02 curly elvis long ponyTail slaughter stylish".split()),
        skin="skinColor",
        shirt="bodyColor",
        expression={"mouthVariant": ["default", "missingTooth"], "eyesVariant": ["confident", "happy", "normal"]},
        identity={"bodyVariant": ["golf", "tShirt"], "headVariant": ["normal", "thin", "wide"]},
        glasses=("glassesProbability", {"glassesVariant": ["normal"]}),
        beard=("mustacheProbability", {"mustacheVariant": ["pencilThinBeard"]}),
    ),
}


@dataclass(frozen=True)
class Person:
    """One identity: a drawing style, the fixed options, and the words that describe it."""

    style: str
    options: dict
    words: dict[str, str | bool | None]

    def draw(self, rng: random.Random, size: int = 256) -> Image.Image:
        """The person with a random expression, RGBA, `size` × `size` pixels."""
        expression = {key: [rng.choice(values)] for key, values in DRAWINGS[self.style].expression.items()}
        return person(self.style, {**self.options, **expression}, size)


def random_person(
    rng: random.Random,
    style: str | None = None,
    hair_colours: Mapping[str, str] = HAIR_COLOURS,
    shares: Mapping[str, float] = PEOPLE_STYLES,
) -> Person:
    """Draw an identity, of a style or one by its share; the words are exact, as colours and accessories are set.

    A word is None where the drawing style does not show it.
    """
    style = style or rng.choices(list(shares), list(shares.values()))[0]
    drawing = DRAWINGS[style]
    hair, shirt, skin = rng.choice(list(hair_colours)), rng.choice(list(SHIRT_COLOURS)), rng.choice(SKIN_COLOURS)
    hair_colour, hair_variant, variants = drawing.hair
    variant = rng.choice([*variants, *(drawing.black_hair if "black" in hair_colours else ())])
    if variant in drawing.black_hair:
        hair = "black"
    options: dict = {
        "seed": f"{rng.random():.12f}",
        **drawing.fixed,
        hair_colour: [hair_colours[hair]],
        hair_variant: [variant],
        drawing.skin: [skin],
        **{option: [hair_colours[hair]] for option in drawing.same_colour_as_hair},
        **{option: [rng.choice(values)] for option, values in drawing.identity.items()},
    }
    if drawing.shirt:
        options[drawing.shirt] = [SHIRT_COLOURS[shirt]]
    words: dict[str, str | bool | None] = {"hair": hair, "shirt": shirt if drawing.shirt else None}
    words["style"] = PEOPLE_STYLE_WORDS.get(style)
    for word, share, part in (("glasses", 0.3, drawing.glasses), ("beard", 0.25, drawing.beard)):
        words[word] = part is not None and rng.random() < share
        if part is not None:
            probability, choices = part
            options |= {probability: 100 if words[word] else 0}
            options |= {option: [rng.choice(values)] for option, values in choices.items()}
    return Person(style, options, words)
