"""What the pictures are made of: the factors and their words. `held_out.py` lists what they are never made of.

A factor's value is a row here; the caption grammar and the readers of prompt-following use the same names.
"""

from __future__ import annotations

from pathlib import Path

from pretraining import places, subjects
from pretraining.places import SCENES, STYLES
from pretraining.subjects import SUBJECTS

__all__ = [
    "ASSETS",
    "CLASS_WORDS",
    "FAMILIES",
    "FAMILY_WORDS",
    "HAIR_COLOURS",
    "LEADING",
    "LEADING_STYLE",
    "PEOPLE_STYLES",
    "PEOPLE_STYLE_WORDS",
    "SCENES",
    "SHIRT_COLOURS",
    "SKIN_COLOURS",
    "STYLES",
    "SUBJECTS",
    "SYNONYMS",
]

ASSETS = Path("work/assets")

#: drawing family -> its share; one leads, so that every subject has a drawing that is learned early
FAMILIES = {"twemoji": 0.90, "noto": 0.03, "fluent": 0.02, "fluent3d": 0.02, "noto-v1": 0.015, "emojione": 0.015}
LEADING = "twemoji"
#: what captions call a drawing of another family than the leading one
FAMILY_WORDS = {"noto": "soft", "fluent": "flat", "fluent3d": "glossy", "noto-v1": "old", "emojione": "plain"}

#: drawing style of people -> its share; one leads, so that "a person" is something that is learned early
PEOPLE_STYLES = {
    "toon-head": 0.72, "personas": 0.04, "micah": 0.04, "open-peeps": 0.04, "adventurer": 0.04, "big-smile": 0.04,
    "pixel-art": 0.04, "miniavs": 0.04,
}  # fmt: skip
LEADING_STYLE = "toon-head"
#: what captions call a person of another style than the leading one
PEOPLE_STYLE_WORDS = {
    "personas": "faceted", "micah": "outlined", "open-peeps": "sketched", "adventurer": "comic", "big-smile": "beaming",
    "pixel-art": "pixel", "miniavs": "mini",
}  # fmt: skip

SYNONYMS = subjects.SYNONYMS | places.SYNONYMS

CLASS_WORDS = {
    "person": "a person",
    "animal": "an animal",
    "food": "some food",
    "vehicle": "a vehicle",
    "object": "an object",
    "plant": "a plant",
    "building": "a building",
}

HAIR_COLOURS = {
    "black": "26211f", "brown": "6f4427", "blond": "e3bd62", "red": "b8431f", "white": "e8e4e4",
    "pink": "f277a8", "blue": "3f6fd8", "green": "3f9c4f",
}  # fmt: skip
SHIRT_COLOURS = {
    "white": "f4f4f4", "black": "2b2b2e", "red": "d23b3b", "blue": "2f63cf", "green": "2f9850",
    "yellow": "f2c230", "purple": "7d4cc2", "orange": "ee8332",
}  # fmt: skip
SKIN_COLOURS = ("f7d3bd", "edb98a", "d08b5b", "ae5d29", "7a4424", "4f2c18")
