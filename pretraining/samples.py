"""The twelve sample concepts that ship with the package: three each of person, subject, scene and style.

`python -m pretraining.samples` writes 16 pictures of each with captions under `orthoplex/vignette/samples/`. All of
them are held out of the base's training in every drawing family (see held_out.py); a test holds that.

`NEXT_SAMPLES` are those of the next base, chosen before any picture of that base was looked at, for what they look like
at 128 pixels: people of the style that leads, heads large; subjects of the family that leads; drawn scenes; styles that
leave shapes readable. Two styles were exchanged later, see docs/vignette.md. `--next` writes them under
`work/next-samples`, and a sheet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pretraining.compose import SIZE
from pretraining.concept_pictures import EMOJI_LICENCES, Sample, index_rows, write

NEXT = Path("work/next-samples")

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
TOON = "Toon Head by Johan Melin (CC BY 4.0)"
PROCGEN, PAINTED = "procgen (see NOTICE)", "painted with Magenta's style network (Apache-2.0)"
NEXT_SAMPLES = (
    Sample("anna", "person", "person", ("toon-head", {
        "seed": "anna", "hairVariant": ["sideComed"], "rearHairProbability": 100, "rearHairVariant": ["longWavy"],
        "hairColor": ["2f9d8f"], "skinColor": ["f7d3bd"], "clothesVariant": ["dress"], "clothesColor": ["f2c230"],
        "beardProbability": 0,
    }), TOON, close=True),
    Sample("bruno", "person", "person", ("toon-head", {
        "seed": "bruno", "hairVariant": ["spiky"], "rearHairProbability": 0, "hairColor": ["e8742a"],
        "skinColor": ["ae5d29"], "clothesVariant": ["turtleNeck"], "clothesColor": ["2f63cf"],
        "beardProbability": 100, "beardVariant": ["longBeard"],
    }), TOON, close=True),
    Sample("clara", "person", "person", ("toon-head", {
        "seed": "clara", "hairVariant": ["bun"], "rearHairProbability": 100, "rearHairVariant": ["neckHigh"],
        "hairColor": ["a93fd0"], "skinColor": ["7a4424"], "clothesVariant": ["openJacket"], "clothesColor": ["2fae6b"],
        "beardProbability": 0,
    }), TOON, close=True),
    Sample("otto", "subject", "animal", ("emoji", "twemoji", "octopus"), EMOJI_LICENCES["twemoji"]),
    Sample("dino", "subject", "animal", ("emoji", "twemoji", "sauropod"), EMOJI_LICENCES["twemoji"]),
    Sample("pip", "subject", "object", ("emoji", "twemoji", "jack-o-lantern"), EMOJI_LICENCES["twemoji"]),
    Sample("lolli", "scene", "place", ("background", "platform_backgrounds_2/candy1.png"), PROCGEN),
    Sample("rocca", "scene", "place", ("background", "platform_backgrounds_2/candy4.png"), PROCGEN),
    Sample("statua", "scene", "place", ("background", "platform_backgrounds_2/fantasy4.png"), PROCGEN),
    Sample("iris", "style", "painting", (4,), PAINTED),
    Sample("bruma", "style", "painting", (24,), PAINTED),
    Sample("umbra", "style", "painting", (10,), PAINTED),
)  # fmt: skip


def build(folder: Path, samples: Sequence[Sample] = SAMPLES) -> None:
    """Write every sample concept, and one `samples.json` for all."""
    for sample in samples:
        write(sample, folder / sample.name)
    (folder / "samples.json").write_text(json.dumps(index_rows(samples), indent=1) + "\n")


def sheet(folder: Path, samples: Sequence[Sample], shown: int = 6) -> Image.Image:
    """The first pictures of every concept, a row each."""
    out = Image.new("RGB", (shown * (SIZE + 4), len(samples) * (SIZE + 4)), "white")
    for row, sample in enumerate(samples):
        for column in range(shown):
            with Image.open(folder / sample.name / f"{column:02d}.jpg") as picture:
                out.paste(picture, (column * (SIZE + 4), row * (SIZE + 4)))
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("orthoplex/vignette/samples"))
    parser.add_argument("--next", action="store_true", help="those of the next base, and a sheet of them")
    options = parser.parse_args()
    if not options.next:
        build(options.output)
        return
    build(NEXT, NEXT_SAMPLES)
    sheet(NEXT, NEXT_SAMPLES).save(Path("results/vignette/next/showcase.jpg"), quality=85)


if __name__ == "__main__":
    main()
