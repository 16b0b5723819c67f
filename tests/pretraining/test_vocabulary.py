"""Nothing that is held out can reach the base's training."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthoplex import vignette
from pretraining import assets, captions, compose, held_out, people, tokenizer, vocabulary
from pretraining.captions import caption, full_prompt, pair_phrase, with_article
from pretraining.compose import SIZE, VIEWS, Box, Factors, Thing, random_box
from pretraining.mix import SIDES, USUAL, USUALLY
from pretraining.people import DRAWINGS, Person, random_person
from pretraining.pool import folk, more, pool
from pretraining.readers import PARTS
from pretraining.samples import NEXT_SAMPLES, SAMPLES

CONCEPTS = [*SAMPLES, *pool(), *more(), *folk()]
KEPT = (compose._person, compose._person_of_side, compose._emoji_of_side, compose._view)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple]]:
    """What the builder asks for, instead of the art itself; nothing that was drawn is kept."""
    calls: list[tuple] = []
    for kept in KEPT:
        kept.cache_clear()

    def opener(kind: str, mode: str, picture_side: int = 32):
        def opened(*arguments: object) -> Image.Image:
            calls.append((kind, *arguments))
            return Image.new(mode, (picture_side, picture_side))

        return opened

    monkeypatch.setattr(compose, "emoji", opener("emoji", "RGBA"))
    monkeypatch.setattr(compose, "background", opener("background", "RGB", 300))
    monkeypatch.setattr(compose, "panorama_view", opener("panorama", "RGB", 256))
    monkeypatch.setattr(people, "person", opener("person", "RGBA"))

    def stylise(picture: Image.Image, style: int) -> Image.Image:
        calls.append(("style", style))
        return picture

    monkeypatch.setattr(compose, "stylise", stylise)
    yield calls
    for kept in KEPT:
        kept.cache_clear()


def faces(names: set[str] | frozenset[str]) -> set[str]:
    """Names and what some families call them instead."""
    return set(names) | {f"{name}-face" for name in names} | {name.removesuffix("-face") for name in names}


def test_the_builder_opens_everything_it_may_and_nothing_that_is_held_out(opened: list[tuple]) -> None:
    made = [compose.compose(5, index)[1] for index in range(3000)]
    asked = {kind: {call[1:] for call in opened if call[0] == kind} for kind in ("emoji", "background", "panorama")}
    drawn = {name for _, name, _ in asked["emoji"]}
    assert {family for family, *_ in asked["emoji"]} == set(vocabulary.FAMILIES)
    drawings = Counter(thing.family for row in made for thing in row.things if thing.family)
    shares = {family: count / drawings.total() for family, count in drawings.items()}
    assert shares == pytest.approx(vocabulary.FAMILIES, abs=0.02)
    assert sum(vocabulary.FAMILIES.values()) == pytest.approx(1)
    assert drawn == {name for name, _ in vocabulary.SUBJECTS.values()}
    assert not faces(drawn) & held_out.EMOJI
    assert not faces(drawn) & {name for names in held_out.MORE_EMOJI.values() for name in names}
    assert {(kind, call[0]) for kind in ("background", "panorama") for call in asked[kind]} == {
        (kind, name) for kind, name in vocabulary.SCENES.values()
    }
    assert not {name for (name,) in asked["background"]} & held_out.BACKGROUNDS
    assert not {call[0] for call in asked["panorama"]} & held_out.PANORAMAS
    styles = {call[1] for call in opened if call[0] == "style"}
    assert styles == set(vocabulary.STYLES.values())
    assert not styles & held_out.STYLES
    persons = [call[1:3] for call in opened if call[0] == "person"]
    assert {style for style, _ in persons} == set(DRAWINGS)
    assert not {style for style, _ in persons} & held_out.PEOPLE_STYLES
    assert held_out.PEOPLE_STYLES <= {file.name.removesuffix(".json") for file in files("dicebear_styles").iterdir()}
    colours = {options[DRAWINGS[style].hair[0]][0] for style, options in persons}
    assert colours == set(vocabulary.HAIR_COLOURS.values())
    assert not colours & set(held_out.HAIR_COLOURS)


@pytest.mark.skipif(not vocabulary.ASSETS.exists(), reason="the art is not downloaded: python -m pretraining.assets")
def test_no_family_draws_a_held_out_emoji_under_another_name() -> None:
    words = [*held_out.EMOJI, *(name for names in held_out.MORE_EMOJI.values() for name in names)]
    for family in vocabulary.FAMILIES:
        subjects = {assets.icon_name(family, name) for name, _ in vocabulary.SUBJECTS.values()}
        kept = set()
        for word in words:
            try:
                kept.add(assets.icon_name(family, word))
            except KeyError:  # this family does not draw it
                continue
        assert len(kept) > 100
        assert not subjects & kept


def test_the_vocabulary_is_as_large_as_it_says() -> None:
    assert 250 <= len(vocabulary.SUBJECTS) <= 300
    assert len({name for name, _ in vocabulary.SUBJECTS.values()}) == len(vocabulary.SUBJECTS)
    assert len(vocabulary.FAMILIES) == 6
    assert 7 <= len(DRAWINGS) <= 10
    assert len(vocabulary.SCENES) >= 50
    assert len(vocabulary.STYLES) == 18
    assert {class_word for _, class_word in vocabulary.SUBJECTS.values()} | {"person"} == set(vocabulary.CLASS_WORDS)
    names = [*vocabulary.SUBJECTS, *vocabulary.SCENES, *vocabulary.STYLES]
    assert set(vocabulary.SYNONYMS) <= set(names)
    others = [other for others in vocabulary.SYNONYMS.values() for other in others]
    assert len(set(others)) == len(others)
    attributes = {*vocabulary.HAIR_COLOURS, *vocabulary.SHIRT_COLOURS, "glasses", "beard", "hair", "shirt", "person"}
    assert not set(others) & {*names, *attributes}
    assert not set(names) & attributes


@pytest.mark.parametrize("sample", [*CONCEPTS, *NEXT_SAMPLES], ids=lambda sample: sample.name)
def test_every_concept_is_held_out(sample) -> None:
    if sample.kind == "subject":
        kind, *source = sample.source
        if kind == "character":
            assert source[0] in held_out.CHARACTERS
        else:
            assert source[1] in held_out.EMOJI | {name for names in held_out.MORE_EMOJI.values() for name in names}
    elif sample.kind == "scene":
        assert sample.source[1] in held_out.PANORAMAS | held_out.BACKGROUNDS
    elif sample.kind == "style":
        assert sample.source[0] in held_out.STYLES or sample.source[0] in ("dots", "shards")
    else:
        style, options = sample.source
        assert options[DRAWINGS[style].hair[0]][0] not in vocabulary.HAIR_COLOURS.values()  # nobody drawn is this one
        assert style in DRAWINGS


def test_the_samples_of_the_next_base_are_three_of_a_kind_and_easily_seen() -> None:
    assert Counter(sample.kind for sample in NEXT_SAMPLES) == {"person": 3, "subject": 3, "scene": 3, "style": 3}
    assert len({json.dumps(sample.source) for sample in NEXT_SAMPLES}) == len(NEXT_SAMPLES)
    shown = [sample for sample in NEXT_SAMPLES if sample.kind in ("person", "subject")]
    assert {sample.source[0] for sample in shown if sample.close} == {vocabulary.LEADING_STYLE}
    assert {sample.source[1] for sample in shown if sample.kind == "subject"} == {vocabulary.LEADING}


def test_the_shipped_samples_are_the_listed_ones_with_captions() -> None:
    shipped = vignette.sample_concepts()
    assert [(s.name, s.kind, s.class_word, s.licence) for s in shipped] == [
        (s.name, s.kind, s.class_word, s.licence) for s in SAMPLES
    ]
    assert sorted({s.kind for s in shipped}) == ["person", "scene", "style", "subject"]
    for sample in shipped:
        rows = [json.loads(line) for line in (sample.folder / "metadata.jsonl").read_text().splitlines()]
        assert len(rows) == 16
        assert all(f"<{sample.name}> {sample.class_word}" in row["text"] for row in rows)
        assert all((sample.folder / row["file_name"]).is_file() for row in rows)


def test_samples_stay_small() -> None:
    size = sum(path.stat().st_size for path in Path(vignette.sample_concepts()[0].folder).parent.rglob("*.jpg"))
    assert size <= 2_000_000


@pytest.mark.parametrize("style", DRAWINGS)
def test_identity_is_fixed_by_the_generator_and_words_are_what_is_drawn(style: str) -> None:
    one, again = random_person(random.Random(5), style), random_person(random.Random(5), style)
    assert one == again
    assert isinstance(one, Person)
    drawing = DRAWINGS[style]
    if one.options[drawing.hair[1]][0] not in drawing.black_hair:
        assert one.options[drawing.hair[0]] == [vocabulary.HAIR_COLOURS[str(one.words["hair"])]]
    if drawing.shirt:
        assert one.options[drawing.shirt] == [vocabulary.SHIRT_COLOURS[str(one.words["shirt"])]]
    else:
        assert one.words["shirt"] is None
    found = [random_person(random.Random(seed), style) for seed in range(60)]
    for word, part in (("glasses", drawing.glasses), ("beard", drawing.beard)):
        if part is None:
            assert not any(someone.words[word] for someone in found)
        else:
            assert {(someone.words[word], someone.options[part[0]]) for someone in found} == {(True, 100), (False, 0)}


@pytest.mark.parametrize("style", DRAWINGS)
def test_every_hair_shows_its_colour_but_the_black_ones(style: str) -> None:
    drawing = DRAWINGS[style]
    colour, variant, coloured = drawing.hair
    plain = {part[0]: 0 for part in (drawing.glasses, drawing.beard) if part}
    fixed = {key: [values[0]] for table in (drawing.expression, drawing.identity) for key, values in table.items()}

    def shown(name: str) -> float:
        options = {"seed": "a", **drawing.fixed, **plain, **fixed, variant: [name]}
        red, blue = (
            np.asarray(assets.person(style, {**options, colour: [value]}, 64), dtype=float)
            for value in ("ff0000", "0000ff")
        )
        return float((np.abs(red - blue).sum(-1) > 200).mean())

    assert all(shown(name) > 0.01 for name in coloured)
    assert all(shown(name) == 0 for name in drawing.black_hair)
    blacks = [someone for seed in range(200) if _hair(someone := random_person(random.Random(seed), style)) == "black"]
    assert any(someone.options[variant][0] in drawing.black_hair for someone in blacks) == bool(drawing.black_hair)
    others = [someone for seed in range(200) if _hair(someone := random_person(random.Random(seed), style)) != "black"]
    assert all(someone.options[variant][0] in coloured for someone in others)
    assert all(sample.source[1][variant][0] in coloured for sample in CONCEPTS if sample.source[0] == style)


def test_one_style_of_people_leads_and_the_others_are_mostly_named() -> None:
    shares, names, leading = vocabulary.PEOPLE_STYLES, vocabulary.PEOPLE_STYLE_WORDS, vocabulary.LEADING_STYLE
    assert shares.keys() == DRAWINGS.keys() == {leading, *names}
    assert sum(shares.values()) == pytest.approx(1.0) and max(shares, key=lambda style: shares[style]) == leading
    rng = random.Random(0)
    people = [random_person(rng) for _ in range(1000)]
    assert sum(someone.style == leading for someone in people) / 1000 == pytest.approx(0.72, abs=0.04)
    named = []
    for someone in people:
        phrase, word = captions.person_phrase(someone.words, rng, short=False), names.get(someone.style)
        if word is None:
            assert phrase.startswith("a person")
        else:
            named.append(f"{word} person" in phrase)
    assert sum(named) / len(named) == pytest.approx(0.7, abs=0.08)


def _hair(someone: Person) -> object:
    return someone.words["hair"]


@pytest.mark.parametrize("kind", ["person", "subject"])
@pytest.mark.parametrize("place", ["middle", "left", "right"])
def test_things_vary_in_place_and_size_stay_in_the_picture_and_mostly_on_the_grid(kind: str, place: str) -> None:
    rng = random.Random(0)
    boxes = [random_box(kind, place, rng) for _ in range(2000)]
    upright = [box for box, tilt in boxes if tilt == 0]
    assert 0.75 < len(upright) / len(boxes) < 0.85
    assert all(value % 8 == 0 for box in upright for value in (box.left, box.top, box.side))
    assert {box.side for box in upright} == set(SIDES[kind, 1 if place == "middle" else 2])
    assert len({box.side for box, tilt in boxes if tilt}) > 10
    assert len({(box.left, box.top) for box, _ in boxes}) > 20
    for box, _ in boxes:
        assert min(box.left, box.top) >= 0
        assert max(box.left, box.top) + box.side <= SIZE
        if place != "middle":
            left, _, right, _ = PARTS[0 if place == "left" else 1]
            assert left <= box.left
            assert box.left + box.side <= right


def boxes(made: Sequence[Factors], things: int) -> list[Box]:
    return [thing.box for row in made if len(row.things) == things for thing in row.things]


def test_most_things_stand_where_their_kind_usually_does(opened: list[tuple]) -> None:
    made = [compose.compose(6, index)[1] for index in range(1500)]
    for places, found in ((["middle"], boxes(made, 1)), (["left", "right"], boxes(made, 2))):
        usual = {Box(*box) for (_, place), box in USUAL.items() if place in places}
        share = sum(box in usual for box in found) / len(found)
        # random places, too, may be the usual one
        assert USUALLY - 0.04 < share < USUALLY + 0.15
    for (kind, place), (left, top, side) in USUAL.items():
        assert all(value % 8 == 0 for value in (left, top, side))
        assert top + side <= SIZE
        assert kind == "subject" or top + side == SIZE
        if place != "middle":
            part = PARTS[place == "right"]
            assert part[0] <= left < left + side <= part[2]


def test_most_pictures_have_the_usual_view_of_their_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = []
    view = Image.new("RGB", (SIZE, SIZE))
    monkeypatch.setattr(compose, "_view", lambda seed, scene, number, size: (numbers.append(number), view)[1])
    monkeypatch.setattr(compose.Stage, "things", lambda stage, rng: [])
    for index in range(3000):
        compose.compose(6, index, styled=0.0)
    assert numbers.count(0) / len(numbers) == pytest.approx(USUALLY, abs=0.05)
    assert len(set(numbers)) == VIEWS


def test_the_same_picture_is_made_whatever_was_made_before(opened: list[tuple]) -> None:
    alone, factors = compose.compose(7, 40)
    for kept in KEPT:
        kept.cache_clear()
    for index in range(40):
        compose.compose(7, index)
    again, told = compose.compose(7, 40)
    assert told == factors
    assert np.array_equal(alone, again)


def test_captions_say_what_is_unusual() -> None:
    def texts(family: str, *box: int) -> set[str]:
        fox = Thing(Box(*box), subject="fox", family=family)
        return {caption(Factors((fox,), "a cave", None), random.Random(seed)) for seed in range(300)}

    usual = texts("twemoji", *USUAL["subject", "middle"])
    assert not [text for text in usual if re.search("small|left|right|flat", text)]
    assert "a small fox on the left in a cave" in texts("twemoji", 0, 48, 64)
    assert "a flat fox on the right in a cave" in texts("fluent", 32, 24, 96)
    assert "an old fox in a cave" in texts("noto-v1", 16, 24, 96)
    grapes = Factors((Thing(Box(32, 40, 64), subject="grapes", family="fluent"),), "a cave", None)
    assert "small flat grapes in a cave" in {caption(grapes, random.Random(seed)) for seed in range(300)}


def factors(*words: str, style: str | None = None) -> Factors:
    things = tuple(Thing(Box(0, 64, 64), subject=word, family="twemoji") for word in words)
    return Factors(things, "a cave", style)


def test_factors_survive_a_row_of_the_collection() -> None:
    someone = Thing(Box(8, 40, 88), person={"hair": "red", "shirt": None, "glasses": True, "beard": False})
    made = Factors((someone, *factors("owl").things), "a cave", "cubist painting")
    assert Factors.from_row(json.loads(json.dumps({"index": 3, **asdict(made)}))) == made


def test_captions_name_every_factor_or_only_the_class() -> None:
    texts = {caption(factors("owl", style="cubist painting"), random.Random(seed)) for seed in range(400)}
    assert "" in texts
    full = [text for text in texts if "an owl" in text]
    assert full
    assert all("cubist painting" in text for text in full)
    assert any("a cave" in text for text in full)
    plain = [text for text in texts if text and "owl" not in text]
    assert plain
    assert all("an animal" in text and "cave" not in text and "cubist" not in text for text in plain)
    assert not [text for text in texts if "photo" in text]  # it is painted


def test_captions_of_two_things_name_both_and_state_their_sides_in_a_third() -> None:
    texts = [caption(factors("fox", "tent"), random.Random(seed)) for seed in range(3000)]
    named = [text for text in texts if "fox" in text]
    assert all("a tent" in text for text in named)
    sided = [text for text in named if "left" in text or "right" in text]
    assert len(sided) / len(named) == pytest.approx(1 / 3, abs=0.05)
    told = ("fox on the left", "tent on the right", "fox left of a tent", "tent right of a fox")
    assert all(any(words in text for words in told) for text in sided)
    free = [text for text in named if text not in sided]
    assert {text.index("fox") < text.index("tent") for text in free} == {True, False}
    assert pair_phrase("a", "b", random.Random(1)) in {"a and b", "b and a"} | {
        "a on the left and b on the right",
        "b on the right and a on the left",
        "a left of b",
        "b right of a",
    }


def test_prompts_of_the_measure_are_no_captions() -> None:
    for words in ((), ("owl",), ("owl", "tent")):
        for style in (None, "cubist painting"):
            given = factors(*words, style=style)
            texts = {caption(given, random.Random(seed)) for seed in range(2000)}
            prompt = full_prompt(given)
            assert prompt not in texts
            assert all(word in prompt for word in (*words, "a cave", *([style] if style else [])))
    assert (
        full_prompt(factors("owl", "tent"), sided=True)
        == "a photo, in a cave, an owl on the left and a tent on the right"
    )
    trained = set(tokenizer.words())
    prompts = [full_prompt(factors(*words, style=style)) for words in ((), ("owl",)) for style in vocabulary.STYLES]
    assert {word for prompt in prompts for word in prompt.replace(",", "").split()} <= trained


def test_synonyms_stand_in_one_of_five_captions() -> None:
    rng = random.Random(0)
    drawn = Counter(captions.synonym("doughnut", rng) for _ in range(2000))
    assert drawn["donut"] / 2000 == pytest.approx(0.2, abs=0.03)
    assert captions.synonym("fox", rng) == "fox"


def test_articles() -> None:
    assert [with_article(word) for word in ("owl", "fox", "grapes", "hourglass")] == [
        "an owl",
        "a fox",
        "grapes",
        "an hourglass",
    ]
    texts = {caption(factors(style=style), random.Random(seed)) for style in vocabulary.STYLES for seed in range(99)}
    words = vocabulary.SHIRT_COLOURS
    someone = [{"hair": "red", "shirt": colour, "glasses": False, "beard": False} for colour in words]
    texts |= {
        captions.person_phrase(person, random.Random(seed), short=False) for person in someone for seed in range(9)
    }
    assert not [text for text in texts if re.search(r"\ba [aeio]", text)]
