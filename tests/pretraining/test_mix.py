"""The next base's pictures: people in half of them, two things in a third, large faces, simple scenes."""

import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pretraining import compose, vocabulary
from pretraining.captions import caption
from pretraining.compose import SIZE, Box, Factors, close_up
from pretraining.mix import MEASURED, NEXT
from pretraining.people import DRAWINGS
from pretraining.readers import PARTS


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Factors]:
    """The factors of pictures of the next base; the art is blank."""
    for kept in (compose._person, compose._person_of_side, compose._emoji_of_side, compose._view):
        kept.cache_clear()
    blank = Image.new("RGBA", (8, 8))
    monkeypatch.setattr(compose, "_person_of_side", lambda whom, side: blank)
    monkeypatch.setattr(compose, "_emoji_of_side", lambda *drawing: blank)
    monkeypatch.setattr(compose, "_view", lambda seed, scene, number, size: Image.new("RGB", (size, size)))
    monkeypatch.setattr("pretraining.people.person", lambda style, options, size: blank)
    found = [compose.compose(9, index, styled=0.0, mix=NEXT)[1] for index in range(4000)]
    compose._person.cache_clear()
    return found


def test_half_of_the_pictures_have_people_and_a_third_two_things(made: list[Factors]) -> None:
    peopled = [row for row in made if any(thing.person for thing in row.things)]
    assert len(peopled) / len(made) == pytest.approx(0.5, abs=0.03)
    pairs = [row.things for row in made if len(row.things) == 2]
    assert len(pairs) / len(made) == pytest.approx(1 / 3, abs=0.03)
    kinds = Counter(sum(thing.person is not None for thing in pair) for pair in pairs)
    assert {number: round(count / len(pairs), 1) for number, count in kinds.items()} == {2: 0.3, 1: 0.5, 0: 0.2}
    assert {bool(pair[0].person) for pair in pairs if bool(pair[0].person) != bool(pair[1].person)} == {True, False}


def test_two_people_differ_in_their_hair(made: list[Factors]) -> None:
    pairs = [row.things for row in made if len(row.things) == 2]
    hair = [[thing.person["hair"] for thing in pair if thing.person] for pair in pairs]
    assert all(len(set(colours)) == len(colours) for colours in hair)
    assert Counter(map(len, hair))[2] > 200


def test_one_drawing_family_a_kind_leads_and_every_other_one_is_there(made: list[Factors]) -> None:
    families = Counter(thing.family for row in made for thing in row.things if thing.family)
    assert families["twemoji"] / families.total() == pytest.approx(NEXT.families["twemoji"], abs=0.02)
    styles = Counter(thing.person["style"] for row in made for thing in row.things if thing.person)
    assert styles[None] / styles.total() == pytest.approx(NEXT.people_styles[vocabulary.LEADING_STYLE], abs=0.02)
    assert families.keys() == MEASURED.families.keys() == NEXT.families.keys()
    assert styles.keys() == {None, *vocabulary.PEOPLE_STYLE_WORDS.values()}
    assert NEXT.people_styles.keys() == DRAWINGS.keys()
    for shares, least in ((NEXT.families, 0.92), (NEXT.people_styles, 0.9)):
        assert sum(shares.values()) == pytest.approx(1.0)
        assert max(shares.values()) >= least


def test_scenes_are_mostly_drawn_and_all_of_them_are_there(made: list[Factors]) -> None:
    kinds = Counter(vocabulary.SCENES[row.scene][0] for row in made)
    assert kinds["panorama"] / len(made) == pytest.approx(0.08, abs=0.02)
    assert {row.scene for row in made} == set(vocabulary.SCENES)
    assert NEXT.usual_view > 0.95


def test_usual_places_lie_on_the_grid_in_the_picture_and_in_their_half() -> None:
    for (kind, place), (left, top, side) in NEXT.usual.items():
        assert all(value % 8 == 0 for value in (left, top, side))
        assert left + side <= SIZE and top + side <= SIZE
        assert kind == "subject" or top + side == SIZE
        if place != "middle":
            part = PARTS[place == "right"]
            assert part[0] <= left < left + side <= part[2]


def test_captions_of_two_things_mostly_state_their_sides(made: list[Factors]) -> None:
    pairs = [row for row in made if len(row.things) == 2]
    texts = [text for number, row in enumerate(pairs) if (text := caption(row, random.Random(number), NEXT.sided))]
    sided = sum(" left" in text or " right" in text for text in texts)
    assert sided / len(texts) == pytest.approx(0.6, abs=0.05)


def figure(top: int) -> Image.Image:
    """A person as toon-head draws one: shoulders to the lower edge, hair from `top` on."""
    drawn = Image.new("RGBA", (256, 256))
    drawn.paste((200, 0, 0, 255), (47, 200, 215, 256))
    drawn.paste((0, 0, 200, 255), (80, top, 180, 200))
    return drawn


@pytest.mark.parametrize("top", [0, 20, 40])
def test_a_face_fills_its_box_and_shows_hair_and_shirt(top: int) -> None:
    whole = figure(top)
    cut = close_up(whole, "toon-head")
    assert cut.width == cut.height < 256
    pixels = np.asarray(cut)
    assert pixels[0, :, 3].any()  # no empty row above the hair
    assert (pixels[-1] == (200, 0, 0, 255)).all(-1).any()  # the shirt
    assert (pixels[..., 3] > 0).mean() > (np.asarray(whole)[..., 3] > 0).mean()
    assert pixels[:, [0, -1], 3].sum() == 0  # nothing is cut off at the sides
    assert close_up(whole, "micah") is whole


def test_a_person_alone_takes_most_of_the_picture() -> None:
    assert Box(*NEXT.usual["person", "middle"]).side > Box(*MEASURED.usual["person", "middle"]).side
