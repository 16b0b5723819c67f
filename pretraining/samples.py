"""The twelve sample concepts that ship with the package: three each of person, subject, scene and style.

`python -m pretraining.samples` writes 16 pictures of each with captions under `orthoplex/vignette/samples/`. All of
them are held out of the base's training in every drawing family (see held_out.py); a test holds that.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pretraining.concept_pictures import EMOJI_LICENCES, Sample, index_rows, write

MICAH = {
    "earringsProbability": 0,
    "earsVariant": ["attached"],
    "noseVariant": ["curve"],
    "clothesVariant": ["collared"],
}
SAMPLES = (
    Sample("anna", "person", "person", ("micah", MICAH | {
        "seed": "anna", "hairVariant": ["full"], "hairColor": ["2f9d8f"], "baseColor": ["f7d3bd"],
        "shirtColor": ["f2c230"], "glassesProbability": 100, "glassesVariant": ["round"], "glassesColor": ["b02a4c"],
        "facialHairProbability": 0,
    }), "Micah by Micah Lanier (CC BY 4.0)"),
    Sample("bruno", "person", "person", ("toon-head", {
        "seed": "bruno", "hairVariant": ["spiky"], "rearHairProbability": 0, "hairColor": ["e8742a"],
        "skinColor": ["ae5d29"], "clothesVariant": ["turtleNeck"], "clothesColor": ["31343c"],
        "beardProbability": 100, "beardVariant": ["longBeard"],
    }), "Toon Head by Johan Melin (CC BY 4.0)"),
    Sample("clara", "person", "person", ("personas", {
        "seed": "clara", "hairVariant": ["pigtails"], "hairColor": ["a93fd0"], "skinColor": ["7a4424"],
        "clothesVariant": ["checkered"], "clothingColor": ["2fae6b"], "facialHairProbability": 0,
        "noseVariant": ["mediumRound"],
    }), "Personas by Draftbit (CC BY 4.0)"),
    Sample("otto", "subject", "animal", ("emoji", "noto", "octopus"), EMOJI_LICENCES["noto"]),
    Sample("vega", "subject", "vehicle", ("emoji", "noto", "rocket"), EMOJI_LICENCES["noto"]),
    Sample("pip", "subject", "object", ("emoji", "twemoji", "jack-o-lantern"), EMOJI_LICENCES["twemoji"]),
    Sample("lolli", "scene", "place", ("background", "platform_backgrounds_2/candy1.png"), "procgen (see NOTICE)"),
    Sample("piazza", "scene", "place", ("panorama", "sunset"), "@pmndrs/assets (CC0)"),
    Sample("lab", "scene", "place", ("panorama", "lab"), "@pmndrs/assets (CC0)"),
    Sample("tessera", "style", "painting", (15,), "painted with Magenta's style network (Apache-2.0)"),
    Sample("umbra", "style", "painting", (10,), "painted with Magenta's style network (Apache-2.0)"),
    Sample("viola", "style", "painting", (16,), "painted with Magenta's style network (Apache-2.0)"),
)  # fmt: skip


def build(folder: Path) -> None:
    """Write every sample concept, and one `samples.json` for all."""
    for sample in SAMPLES:
        write(sample, folder / sample.name)
    (folder / "samples.json").write_text(json.dumps(index_rows(SAMPLES), indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("orthoplex/vignette/samples"))
    build(parser.parse_args().output)
