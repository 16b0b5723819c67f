"""Pictures of held-out concepts, as a creator would have them: the same thing in other places, with captions."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from pretraining.assets import background, character, emoji, panorama_view
from pretraining.captions import with_article
from pretraining.compose import (
    CANVAS,
    SIZE,
    head_and_shoulders,
    paste,
    random_box,
    random_family,
    random_square,
    scene_picture,
    stylise,
)
from pretraining.people import Person
from pretraining.vocabulary import SCENES, SUBJECTS

PICTURES = 16
EMOJI_LICENCES = {
    "noto": "Noto Emoji by Google (Apache-2.0)",
    "twemoji": "Twemoji by Twitter, others (CC BY 4.0)",
    "fluent": "Fluent Emoji by Microsoft (MIT)",
}


@dataclass(frozen=True)
class Sample:
    """One concept: `source` is what its kind needs to be drawn.

    A person's is (drawing style, options), a subject's ("emoji", family, name) or ("character", name), a scene's
    ("panorama", name) or ("background", path), a style's (number of a painting style,) or the arguments of `pattern`.
    With `close` a person is cut to head and shoulders, as people are for the next base.
    """

    name: str
    kind: str
    class_word: str
    source: tuple
    licence: str
    close: bool = False


def thing(rng: random.Random) -> tuple[Image.Image, str]:
    """A cut-out subject of the base's vocabulary and its words."""
    subject = rng.choice(list(SUBJECTS))
    return emoji(random_family(rng), SUBJECTS[subject][0]), with_article(subject)


def view(kind: str, name: str, rng: random.Random) -> Image.Image:
    """A view of a sample scene: within 35 degrees of a panorama's side 120, or anywhere in a drawn background."""
    if kind == "panorama":
        return panorama_view(name, 120 + rng.uniform(-35, 35), rng.uniform(65, 85), CANVAS)
    return random_square(background(name), rng)


def pattern(shape: str, *colours: str) -> Image.Image:
    """A picture whose style is painted in: `dots` in rows on the first colour, or `shards` of all colours."""
    size, rng = 256, random.Random(f"{shape} {' '.join(colours)}")
    out = Image.new("RGB", (size, size), colours[0])
    pen = ImageDraw.Draw(out)
    if shape == "dots":
        for left, top in itertools.product(range(4, size, 24), repeat=2):
            pen.ellipse((left, top, left + 16, top + 16), fill=rng.choice(colours[1:]))
        return out
    for _ in range(220):
        left, top, side = rng.randint(-20, size), rng.randint(-20, size), rng.randint(20, 60)
        corners = [(left, top), (left + side, top + rng.randint(-20, 20)), (left + rng.randint(0, side), top + side)]
        pen.polygon(corners, fill=rng.choice(colours), outline="black")
    return out


def cutout(sample: Sample, rng: random.Random) -> Image.Image:
    """A person with a random expression, a character in a random pose, or a subject."""
    if sample.kind == "person":
        person = Person(*sample.source, words={})
        return head_and_shoulders(person, rng, CANVAS) if sample.close else person.draw(rng)
    kind, *source = sample.source
    return character(source[0], rng) if kind == "character" else emoji(*source)


def draw(sample: Sample, index: int) -> tuple[Image.Image, str]:
    """Picture number `index` of a concept, SIZE × SIZE RGB, and its caption; it is never mirrored."""
    rng = random.Random(f"{sample.name}/{index}")
    scene = rng.choice(list(SCENES))
    trigger = f"<{sample.name}> {sample.class_word}"
    if sample.kind == "scene":
        picture, text = view(*sample.source, rng), trigger
        if index % 4 == 3:
            other, words = thing(rng)
            picture, text = paste(picture, other, *random_box("subject", "middle", rng)), f"{words} in {trigger}"
    elif sample.kind == "style":
        other, words = thing(rng)
        picture = paste(scene_picture(*SCENES[scene], rng), other, *random_box("subject", "middle", rng))
        style = sample.source[0]
        picture = stylise(picture, style if isinstance(style, int) else pattern(*sample.source))
        text = f"{words} in {scene}, {trigger}"
    else:
        box, tilt = random_box(sample.kind, "middle", rng)
        picture = paste(scene_picture(*SCENES[scene], rng), cutout(sample, rng), box, tilt)
        text = f"{trigger} in {scene}"
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), text


def write(sample: Sample, folder: Path) -> None:
    """Write the pictures of a concept and `metadata.jsonl` with their captions into a folder, none twice."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, shown = [], set()
    for index in range(PICTURES):
        numbers = range(index, 100 * PICTURES, PICTURES)
        new = (drawn for number in numbers if (drawn := draw(sample, number))[0].tobytes() not in shown)
        picture, text = next(new, (None, ""))
        if picture is None:
            raise ValueError(f"{sample.name} has {len(shown)} different pictures; {PICTURES} are needed")
        shown.add(picture.tobytes())
        picture.save(folder / f"{index:02d}.jpg", quality=92)
        lines.append(json.dumps({"file_name": f"{index:02d}.jpg", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def index_rows(samples: Sequence[Sample]) -> list[dict]:
    """What a reader of the folder needs to know of every concept."""
    return [{"name": s.name, "kind": s.kind, "class_word": s.class_word, "licence": s.licence} for s in samples]
