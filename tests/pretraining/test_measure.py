"""What is read off pictures, and the figures made of it."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from orthoplex import vignette
from orthoplex.evaluation import MobileNetEncoder
from pretraining.compose import Box, Factors, Thing
from pretraining.measure import TARGETS, known_words, shares, sides, spread, summary, table
from pretraining.readers import PARTS, PERSON, Features, Readers, fit_readers, pair, parts, truth

BOX = Box(0, 64, 64)
WORDS = ("fox", "owl", "tent", "pizza", PERSON)
SCENES, STYLES = ("a cave", "a beach", "a forest"), (None, "cubist painting")


def thing(word: str) -> Thing:
    return Thing(BOX, person={"hair": "red"}) if word == PERSON else Thing(BOX, subject=word, family="noto")


def random_factors(rng: random.Random) -> Factors:
    words = rng.sample(WORDS, rng.choice((0, 1, 2)))
    return Factors(tuple(thing(word) for word in words), rng.choice(SCENES), rng.choice(STYLES))


def one_hot(values: list, names: tuple) -> Tensor:
    return torch.eye(len(names))[[names.index(value) for value in values]]


def features_of(rows: list[Factors], *, exchanged: bool = False, seed: int = 0) -> Features:
    """Features in which every factor has directions of its own."""
    names = (None, *WORDS)
    only = [truth(row)["subject"] or (PERSON if truth(row)["class"] == "person" else None) for row in rows]
    columns = [one_hot([row.scene for row in rows], SCENES), one_hot([row.style for row in rows], STYLES)]
    whole = torch.cat([*columns, one_hot(only, names)], dim=1)
    pairs = [found for found in map(pair, rows) if found]
    sides = (1, 0) if exchanged else (0, 1)
    halves = torch.stack([one_hot([names_[side] for names_ in pairs], WORDS) for side in sides])
    generator = torch.Generator().manual_seed(seed)
    return Features(*(x + 0.1 * torch.randn(x.shape, generator=generator) for x in (whole, halves)))


def many(seed: int) -> list[Factors]:
    rng = random.Random(seed)
    return [random_factors(rng) for _ in range(900)]


@pytest.fixture(scope="module")
def readers() -> Readers:
    return fit_readers(features_of(many(0)), many(0), "test")


def test_only_pictures_of_one_thing_have_a_class_and_a_subject() -> None:
    both = Factors((thing("fox"), thing(PERSON)), "a cave", None)
    assert truth(both) == {"class": None, "subject": None, "scene": "a cave", "style": "no style"}
    assert pair(both) == ("fox", PERSON)
    alone = Factors((thing("fox"),), "a cave", "cubist painting")
    assert truth(alone) == {"class": "animal", "subject": "fox", "scene": "a cave", "style": "cubist painting"}
    assert pair(alone) is None
    assert truth(Factors((thing(PERSON),), "a cave", None))["subject"] is None


def test_the_parts_are_left_and_right() -> None:
    picture = Image.new("RGB", (128, 128), "red")
    picture.paste("blue", (64, 0, 128, 128))
    left, right = parts([picture])
    assert left.getpixel((2, 50)) == (255, 0, 0)
    assert right.getpixel((70, 50)) == (0, 0, 255)
    assert left.size == right.size == (PARTS[0][2], 128 - PARTS[0][1])


def test_readers_read_unseen_pictures_in_either_order(readers: Readers) -> None:
    rows = many(1)
    for exchanged in (False, True):
        shown = features_of(rows, exchanged=exchanged, seed=1)
        right = readers.right(shown, rows)
        assert set(right) == set(TARGETS)
        assert all(values.mean() > 0.95 for name, values in right.items() if name != "found by chance")
        assert right["found by chance"].mean() < 0.3
        stated = sides(readers, shown, rows, [len(row.things) == 2 for row in rows])
        assert stated["found"] > 0.95
        assert stated["one_way"] > 0.9 * stated["prompts"]
        assert stated["as_stated"] == pytest.approx(0.0 if exchanged else 1.0, abs=0.02)
    assert len(right["both found"]) == sum(pair(row) is not None for row in rows)
    assert len(right["subject"]) == sum(truth(row)["subject"] is not None for row in rows)


def test_one_thing_twice_is_not_both(readers: Readers) -> None:
    rows = [Factors((thing("fox"), thing("owl")), "a cave", None)] * 8
    twice = features_of([Factors((thing("fox"), thing("fox")), "a cave", None)] * 8, seed=3)
    assert readers.right(twice, rows)["both found"].mean() == 0
    assert readers.right(twice, rows)["both named"].mean() == 0


def test_one_unseen_picture_in_twenty_passes_a_threshold(readers: Readers) -> None:
    rows = many(2)
    scores = readers.part_scores(features_of(rows, seed=2).halves).amax(0)
    passed = []
    for column, name in enumerate(readers.part.classes):
        without = [name not in names for names in map(pair, rows) if names]
        passed.append((scores[without, column] > readers.thresholds[column]).float().mean())
    assert 0.02 < float(torch.stack(passed).mean()) < 0.09


def test_features_of_pictures_have_parts_where_there_are_two_things() -> None:
    rows = [Factors((), "a cave", None), Factors((thing("fox"), thing("owl")), "a cave", None)]
    pictures = [Image.new("RGB", (128, 128), colour) for colour in ("red", "green")]
    found = Features.of(pictures, rows, MobileNetEncoder(picture_size=32))
    assert found.whole.shape == (2, 1280)
    assert found.halves.shape == (2, 1, 1280)


def test_features_of_some_pictures_keep_the_parts_of_their_pairs() -> None:
    rows = many(4)[:40]
    shown, kept = features_of(rows), [33, 2, 17, 8, 25, 6]
    taken = shown.take(kept, rows)
    torch.testing.assert_close(taken.whole, shown.whole[kept])
    numbers = [number for number, row in enumerate(rows) if pair(row)]
    assert any(number in numbers for number in kept)
    expected = [shown.halves[:, numbers.index(number)] for number in kept if number in numbers]
    torch.testing.assert_close(taken.halves, torch.stack(expected, dim=1))


def test_spread_is_zero_for_equal_pictures_and_one_for_orthogonal_ones() -> None:
    assert spread(torch.tensor([[1.0, 0.0]] * 3)) == pytest.approx(0)
    assert spread(torch.eye(4)) == pytest.approx(1)


def test_the_table_shows_every_base_beside_the_ceiling() -> None:
    def reading(value: float) -> dict:
        names = [*reversed(TARGETS)]  # in another order than the columns
        return summary({name: np.array([value, value, value, 0.0]) for name in names}) | {
            "found by chance": {"accuracy": value / 4, "low": 0.0, "high": 1.0}
        }

    def base(value: float) -> dict:
        row = {"noise": 0.2, "psnr_db": 27.5, "psnr_db_linear_decoding": 25.0, "read": reading(value)}
        return {
            "factors": reading(value),
            "shares": {"both found": {"share": value, "low": 0.4, "high": 0.6}},
            "known_words": {"prompts": 7, "base": reading(value), "real": reading(1.0)},
            "sides": {"prompts": 5, "found": 0.4, "one_way": 2, "as_stated": 0.9},
            "diversity": {"base": 0.3, "real": 0.4, "share": 0.75},
            "autoencoder": [row],
        }

    made = table({"real": reading(1.0), "bases": {"base": base(0.5), "previous base": base(0.25)}})
    assert "| factor | base | previous base | real composites (ceiling) | share of the ceiling | goal |" in made
    line = next(line for line in made.splitlines() if line.startswith("| both found"))
    assert line.startswith("| both found | 0.375 [")
    assert "| 0.750 | 50% [40%, 60%] | 60% of all |" in line
    columns = next(line for line in made.splitlines() if line.startswith("| prompts in words")).split(" | ")
    known = next(line for line in made.splitlines() if line.startswith("| previous base: 7")).split(" | ")
    assert [known[i] for i in (1, columns.index("found by chance (ceiling)"))] == ["0.188 (0.750)", "0.062 (0.250)"]
    assert "| previous base | 5 | 0.400 | 0.900 of 2 | 0.300 | 0.400 (75%) |" in made
    assert "| base | 0.2 | 27.50 | 25.00 | 0.375 |" in made


def test_a_share_of_the_ceiling_has_an_interval_of_pairs() -> None:
    real = np.array([1.0] * 80 + [0.0] * 20)
    base = real * np.array([1.0, 0.0] * 50)
    found = shares(dict.fromkeys(TARGETS, base), dict.fromkeys(TARGETS, real))
    assert set(found) == {name for name, goal in TARGETS.items() if goal is not None}
    row = found["scene"]
    assert row["share"] == 0.5 and 0.35 < row["low"] < 0.45 and 0.55 < row["high"] < 0.65
    assert shares(dict.fromkeys(TARGETS, base), dict.fromkeys(TARGETS, 0 * real)) == {}


def test_nothing_is_said_of_sides_that_no_prompt_states(readers: Readers) -> None:
    rows = many(1)[:20]
    told = sides(readers, features_of(rows), rows, [False] * len(rows))
    assert told == {"prompts": 0, "found": None, "one_way": 0, "as_stated": None}


def test_words_that_the_tokenizer_cuts_are_not_known() -> None:
    rows = [
        Factors((thing("fox"),), "a forest", None),
        Factors((thing("scorpion"),), "a forest", None),
        Factors((), "a forest", "zzz painting"),
        Factors((thing(PERSON),), "a cave", None),
    ]
    known = known_words(vignette.folder(), rows)
    assert 0 in known
    assert 3 in known
    assert 2 not in known
    words = vignette.folder() / "tokenizer" / "tokenizer.json"
    assert (1 in known) == ("scorpion</w>" in words.read_text())
