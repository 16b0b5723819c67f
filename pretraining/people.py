"""People with a fixed identity: hair, beard, nose, glasses, clothes and colours stay; mouth, eyes and brows vary."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from pretraining.assets import person
from pretraining.vocabulary import HAIR_COLOURS, PEOPLE_STYLES, SHIRT_COLOURS, SKIN_COLOURS

HAIR_VARIANTS = {
    "micah": "dannyPhantom dougFunny fonze full mrClean mrT pixie turban".split(),
    "toon-head": "bun sideComed spiky undercut".split(),
    "personas": "bobBangs bobCut buzzcut curly curlyBun curlyHighTop extraLong fade long mohawk pigtails".split(),
    "open-peeps": "afro bangs bangs2 bun bun2 buns cornrows cornrows2 dreads1 flatTop flatTopLong grayBun grayMedium "
    "grayShort long longAfro longBangs longCurly medium1 medium2 medium3 mediumBangs mediumStraight mohawk mohawk2 "
    "pomp shaved1 short1 short2 short3 short4 short5 turban twists twists2".split(),
}
COLOUR_OPTIONS = {
    "micah": ("hairColor", "shirtColor", "baseColor"),
    "toon-head": ("hairColor", "clothesColor", "skinColor"),
    "personas": ("hairColor", "clothingColor", "skinColor"),
    "open-peeps": ("headContrastColor", "clothingColor", "skinColor"),
}
#: parts that vary between pictures of one person
EXPRESSIONS = {
    "micah": {
        "mouthVariant": ["laughing", "smile", "smirk", "surprised", "pucker"],
        "eyesVariant": ["eyes", "round", "smiling"],
        "eyebrowsVariant": ["up", "down"],
    },
    "toon-head": {
        "mouthVariant": ["agape", "laugh", "smile", "sad"],
        "eyesVariant": ["happy", "wide", "wink", "humble"],
        "eyebrowsVariant": ["happy", "neutral", "raised"],
    },
    "personas": {
        "mouthVariant": ["bigSmile", "smile", "smirk", "surprise", "frown"],
        "eyesVariant": ["happy", "open", "wink"],
    },
    "open-peeps": {"expressionVariant": "smile smileBig calm cheeky cute awe driven lovingGrin1".split()},
}
GLASSES = {
    "micah": ("glassesProbability", {"glassesVariant": ["round", "square"]}),
    "open-peeps": ("accessoriesProbability", {"accessoriesVariant": ["glasses", "glasses2", "glasses3"]}),
}
BEARDS = {
    "micah": ("facialHairProbability", {"facialHairVariant": ["beard"]}),
    "toon-head": ("beardProbability", {"beardVariant": ["fullBeard", "chinMoustache", "longBeard"]}),
    "personas": ("facialHairProbability", {"facialHairVariant": ["beardMustache", "walrus", "goatee"]}),
    "open-peeps": ("facialHairProbability", {"facialHairVariant": ["full", "full2", "moustache1", "goatee1"]}),
}


@dataclass(frozen=True)
class Person:
    """One identity: a drawing style, the fixed options, and the words that describe it."""

    style: str
    options: dict
    words: dict[str, str | bool]

    def draw(self, rng: random.Random, size: int = 256) -> Image.Image:
        """The person with a random expression, RGBA, `size` × `size` pixels."""
        expression = {key: [rng.choice(values)] for key, values in EXPRESSIONS[self.style].items()}
        return person(self.style, {**self.options, **expression}, size)


def random_person(rng: random.Random, style: str | None = None) -> Person:
    """Draw an identity; the words are exact by construction (colours and accessories are set, not guessed)."""
    style = style or rng.choice(PEOPLE_STYLES)
    hair_option, shirt_option, skin_option = COLOUR_OPTIONS[style]
    hair, shirt, skin = rng.choice(list(HAIR_COLOURS)), rng.choice(list(SHIRT_COLOURS)), rng.choice(SKIN_COLOURS)
    options: dict = {
        "seed": f"{rng.random():.12f}",
        hair_option: [HAIR_COLOURS[hair]],
        shirt_option: [SHIRT_COLOURS[shirt]],
        skin_option: [skin],
        "earringsProbability": 0,
    }
    hair_key = "headVariant" if style == "open-peeps" else "hairVariant"
    options[hair_key] = [rng.choice(HAIR_VARIANTS[style])]
    glasses = beard = False
    if style in GLASSES:
        key, variants = GLASSES[style]
        glasses = rng.random() < 0.3
        options |= {key: 100 if glasses else 0, **{k: [rng.choice(v)] for k, v in variants.items()}}
    key, variants = BEARDS[style]
    beard = rng.random() < 0.25
    options |= {key: 100 if beard else 0, **{k: [rng.choice(v)] for k, v in variants.items()}}
    for option in ("facialHairColor", "eyebrowsColor"):
        if style in ("micah", "personas") and not (style == "personas" and option == "eyebrowsColor"):
            options[option] = [HAIR_COLOURS[hair]]
    if style == "open-peeps":
        options["maskProbability"] = 0
    return Person(style, options, {"hair": hair, "shirt": shirt, "glasses": glasses, "beard": beard})
