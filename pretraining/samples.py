"""The twelve sample concepts that ship with the package: three each of person, subject, scene and style.

`python -m pretraining.samples` writes 16 pictures of each with captions under `orthoplex/vignette/samples/`. All of
them are held out of the base's training in every drawing family (see vocabulary.py); a test holds that.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pretraining.assets import background, emoji, panorama_view, person
from pretraining.people import EXPRESSIONS
from pretraining.pictures import CANVAS, SIZE, paste, random_square, scene_picture, stylise
from pretraining.vocabulary import FAMILIES, SCENES, SUBJECTS

PICTURES = 16


@dataclass(frozen=True)
class Sample:
    """One sample concept: `source` is what `draw` needs to make its pictures."""

    name: str
    kind: str
    class_word: str
    source: tuple
    licence: str


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
    Sample("otto", "subject", "animal", ("noto", "octopus"), "Noto Emoji by Google (Apache-2.0)"),
    Sample("vega", "subject", "vehicle", ("noto", "rocket"), "Noto Emoji by Google (Apache-2.0)"),
    Sample("pip", "subject", "object", ("twemoji", "jack-o-lantern"), "Twemoji by Twitter, others (CC BY 4.0)"),
    Sample("lolli", "scene", "place", ("background", "platform_backgrounds_2/candy1.png"), "procgen (see NOTICE)"),
    Sample("piazza", "scene", "place", ("panorama", "sunset"), "@pmndrs/assets (CC0)"),
    Sample("lab", "scene", "place", ("panorama", "lab"), "@pmndrs/assets (CC0)"),
    Sample("tessera", "style", "painting", (15,), "painted with Magenta's style network (Apache-2.0)"),
    Sample("umbra", "style", "painting", (10,), "painted with Magenta's style network (Apache-2.0)"),
    Sample("viola", "style", "painting", (16,), "painted with Magenta's style network (Apache-2.0)"),
)  # fmt: skip


def thing(rng: random.Random) -> tuple[Image.Image, str]:
    """A cut-out subject of the base's vocabulary and its words."""
    subject = rng.choice([word for word in SUBJECTS if word not in ("grapes", "cherries")])
    article = "an" if subject[0] in "aeiou" else "a"
    return emoji(rng.choice(FAMILIES), SUBJECTS[subject][0]), f"{article} {subject}"


def view(kind: str, name: str, rng: random.Random) -> Image.Image:
    """A view of a sample scene: within 35 degrees of a panorama's side 120, or anywhere in a drawn background."""
    if kind == "panorama":
        return panorama_view(name, 120 + rng.uniform(-35, 35), rng.uniform(65, 85), CANVAS)
    return random_square(background(name), rng)


def draw(sample: Sample, index: int) -> tuple[Image.Image, str]:
    """Picture number `index` of a sample concept, SIZE × SIZE RGB, and its caption; it is never mirrored."""
    rng = random.Random(f"{sample.name}/{index}")
    scene = rng.choice(list(SCENES))
    trigger = f"<{sample.name}> {sample.class_word}"
    if sample.kind == "scene":
        picture, text = view(*sample.source, rng), trigger
        if index % 4 == 3:
            cutout, words = thing(rng)
            picture, text = paste(picture, cutout, rng, is_person=False), f"{words} in {trigger}"
    elif sample.kind == "style":
        cutout, words = thing(rng)
        picture = paste(scene_picture(*SCENES[scene], rng), cutout, rng, is_person=False)
        picture, text = stylise(picture, *sample.source), f"{words} in {scene}, {trigger}"
    elif sample.kind == "person":
        style, options = sample.source
        expression = {key: [rng.choice(values)] for key, values in EXPRESSIONS[style].items()}
        cutout = person(style, {**options, **expression})
        picture = paste(scene_picture(*SCENES[scene], rng), cutout, rng, is_person=True, mirrored=False)
        text = f"{trigger} in {scene}"
    else:
        cutout = emoji(*sample.source)
        picture = paste(scene_picture(*SCENES[scene], rng), cutout, rng, is_person=False, mirrored=False)
        text = f"{trigger} in {scene}"
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), text


def build(folder: Path) -> None:
    """Write every sample concept: pictures, `metadata.jsonl` with captions, and one `samples.json` for all."""
    for sample in SAMPLES:
        target = folder / sample.name
        target.mkdir(parents=True, exist_ok=True)
        lines = []
        for index in range(PICTURES):
            picture, text = draw(sample, index)
            picture.save(target / f"{index:02d}.jpg", quality=92)
            lines.append(json.dumps({"file_name": f"{index:02d}.jpg", "text": text}))
        (target / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    rows = [{"name": s.name, "kind": s.kind, "class_word": s.class_word, "licence": s.licence} for s in SAMPLES]
    (folder / "samples.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("orthoplex/vignette/samples"))
    build(parser.parse_args().output)
