"""Nothing that is held out can reach the base's training."""

import json
import random
from pathlib import Path

import pytest

from orthoplex import vignette
from pretraining import vocabulary
from pretraining.people import Person, random_person
from pretraining.pictures import Factors, caption, subject_phrase
from pretraining.samples import SAMPLES


def test_no_held_out_emoji_is_a_subject_in_any_family() -> None:
    assert not {name for name, _ in vocabulary.SUBJECTS.values()} & vocabulary.HELD_OUT_EMOJI


def test_no_held_out_scene_or_style_is_used() -> None:
    names = {"panorama": vocabulary.HELD_OUT_PANORAMAS, "background": vocabulary.HELD_OUT_BACKGROUNDS}
    assert not [words for words, (kind, name) in vocabulary.SCENES.items() if name in names[kind]]
    assert not set(vocabulary.STYLES.values()) & vocabulary.HELD_OUT_STYLES


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_sample_concept_is_held_out(sample) -> None:
    if sample.kind == "subject":
        assert sample.source[1] in vocabulary.HELD_OUT_EMOJI
    elif sample.kind == "scene":
        assert sample.source[1] in vocabulary.HELD_OUT_PANORAMAS | vocabulary.HELD_OUT_BACKGROUNDS
    elif sample.kind == "style":
        assert sample.source[0] in vocabulary.HELD_OUT_STYLES
    else:
        style, options = sample.source
        assert options["hairColor"][0] not in vocabulary.HAIR_COLOURS.values()  # no drawn person can be this one
        assert style in vocabulary.PEOPLE_STYLES


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


def test_identity_is_fixed_by_the_generator_and_words_are_what_is_drawn() -> None:
    one, again = random_person(random.Random(5)), random_person(random.Random(5))
    assert one == again
    assert isinstance(one, Person)
    colours = {value for values in one.options.values() if isinstance(values, list) for value in values}
    assert vocabulary.HAIR_COLOURS[str(one.words["hair"])] in colours
    assert vocabulary.SHIRT_COLOURS[str(one.words["shirt"])] in colours


def test_captions_name_every_factor_or_only_the_class() -> None:
    factors = Factors("subject", "owl", "noto", None, "a cave", "cubist painting")
    texts = {caption(factors, random.Random(seed)) for seed in range(400)}
    assert "" in texts
    full = [text for text in texts if "an owl" in text]
    assert full
    assert all("cubist painting" in text for text in full)
    assert any("a cave" in text for text in full)
    plain = [text for text in texts if text and "owl" not in text]
    assert plain
    assert all("an animal" in text and "cave" not in text and "cubist" not in text for text in plain)


def test_articles() -> None:
    assert [subject_phrase(word) for word in ("owl", "fox", "grapes")] == ["an owl", "a fox", "grapes"]
