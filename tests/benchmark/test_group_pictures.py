"""Several concepts in one picture: who is drawn, and when each counts as recognised."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from orthoplex.benchmark import ConceptSource
from orthoplex.benchmark.group_pictures import (
    Combination,
    CombinationViews,
    GroupMeasurement,
    GroupPictures,
    Views,
    combinations,
    measure_groups,
    summarise_groups,
)
from orthoplex.benchmark.measurement import References
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import halves

KINDS = {"anna": "person", "mia": "person", "rex": "subject", "pip": "subject", "oil": "style"}
AXES = {name: number for number, name in enumerate(KINDS)}


@pytest.fixture
def concepts(tmp_path):
    return tuple(ConceptSource(name, kind, kind, tmp_path) for name, kind in KINDS.items())


@pytest.fixture
def references():
    """Every concept is an axis of its own."""
    return {name: References(kind, axis(name), axis(name)) for name, kind in KINDS.items()}


def axis(*names):
    rows = torch.zeros(max(1, len(names)), len(KINDS) + 1)
    for row, name in enumerate(names):
        rows[row, AXES[name]] = 1.0
    if not names:
        rows[0, -1] = 1.0
    return rows


def views(whole, left, right):
    """One picture, its three views as unit mixtures of axes."""
    parts = [axis(*names).sum(0, keepdim=True) for names in (whole, left, right)]
    return Views(torch.stack([part / part.norm() for part in parts]))


NOTHING = views((), (), ())


def table(**changes):
    values = {"name": "pairs", "kinds": ("person", "subject"), "prompts": ("{1} and {2}",), "draws": 1}
    return GroupPictures(**{**values, **changes})


def test_prompts_are_filled_by_place():
    assert table(prompts=("a {2} left of {1}",)).fill(["<anna> person", "<rex> dog"]) == (
        "a <rex> dog left of <anna> person",
    )


def test_combinations_differ_are_balanced_and_hold_companions(concepts):
    drawn = combinations(table(draws=4, companions=2), concepts)
    assert len({row.shown for row in drawn}) == 4
    for name in ("anna", "mia", "rex", "pip"):
        assert sum(name in row.shown for row in drawn) == 2
    for row in drawn:
        assert len(row.members) == 4 and set(row.shown) < set(row.members) and list(row.members) == sorted(row.members)
    assert drawn == combinations(table(draws=4, companions=2), concepts)
    first = combinations(table(draws=2), concepts)
    assert {name for row in first for name in row.shown} == {"anna", "mia", "rex", "pip"}


def test_tables_that_differ_in_their_companions_picture_the_same_combinations(concepts):
    alone = combinations(table(name="alone", draws=3), concepts)
    among = combinations(table(name="among others", draws=3, companions=2), concepts)
    assert [row.shown for row in alone] == [row.shown for row in among]


def test_two_of_a_kind_are_two_concepts(concepts):
    drawn = combinations(table(kinds=("person", "person"), draws=2), concepts)
    assert {row.shown for row in drawn} == {("anna", "mia"), ("mia", "anna")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("person",)}, "has 1 kinds; allowed: 2 or more"),
        ({"kinds": ("person", "dog")}, "has the kind 'dog'"),
        (
            {"kinds": ("person", "person", "subject"), "prompts": ("{1} {2} {3}",)},
            "at most 2 of person, subject, other",
        ),
        ({"prompts": ()}, "has the prompt ''"),
        ({"prompts": ("{1} alone",)}, "{1}, {2}, each once"),
        ({"draws": 0}, "together: draws is 0"),
        ({"companions": -1}, "together: companions is -1"),
    ],
)
def test_what_a_table_cannot_be(changes, message):
    with pytest.raises(ConfigurationError, match=message.replace("{", r"\{").replace("}", r"\}")):
        table(**changes)


def test_more_than_there_is(concepts):
    with pytest.raises(ConfigurationError, match="draws = 5; allowed: 1 to 4"):
        combinations(table(draws=5), concepts)
    with pytest.raises(ConfigurationError, match="companions = 4; allowed: 0 to 3"):
        combinations(table(companions=4), concepts)


def test_halves_overlap_and_leave_the_top_out():
    picture = Image.new("RGB", (128, 128))
    picture.putpixel((0, 30), (255, 0, 0))
    picture.putpixel((127, 127), (0, 255, 0))
    left, right = halves(picture)
    assert left.size == right.size == (80, 104)
    assert left.getpixel((0, 6)) == (255, 0, 0) and right.getpixel((79, 103)) == (0, 255, 0)


def measured(references, pictures, base=NOTHING, alone=(), **changes):
    settings = table(**changes)
    shown = {2: ("anna", "rex"), 3: ("anna", "rex", "oil")}[len(settings.kinds)]
    if settings.kinds == ("subject", "style"):
        shown = ("rex", "oil")
    combination = Combination(shown, shown)
    told = tuple(KINDS[name] for name in shown)
    (row,) = measure_groups(
        settings,
        "v",
        0,
        {combination: CombinationViews(pictures, alone or (NOTHING,) * len(shown), NOTHING)},
        {told: base},
        references,
        KINDS,
    )
    return row


def test_two_things_are_found_in_different_halves(references):
    row = measured(references, views(("anna", "rex"), ("rex",), ("anna",)))
    assert row.recognised == (1.0, 1.0) and row.all_recognised == 1.0 and row.base_all_recognised == 0.0
    assert row.alignment == pytest.approx((0.5**0.5, 0.5**0.5)) and row.base_alignment == (0.0, 0.0)
    both_left = measured(references, views(("anna", "rex"), ("anna", "rex"), ()))
    assert both_left.recognised == (1.0, 1.0) and both_left.all_recognised == 0.0
    other = measured(references, views(("mia", "rex"), ("rex",), ("mia",)))
    assert other.recognised == (0.0, 1.0) and other.all_recognised == 0.0


def test_each_alone_is_judged_as_it_is_together(references):
    anna, both = views((), ("anna",), ()), views(("anna", "rex"), ("rex",), ("anna",))
    row = measured(references, both, alone=(anna, NOTHING))
    assert row.alone == (1.0, 0.0) and row.expected == 0.0
    row = measured(references, both, alone=(anna, views(("rex",), (), ("rex",))))
    assert row.alone == (1.0, 1.0) and row.expected == 1.0
    assert measured(references, both, base=both, alone=(anna, anna)).alone == (0.0, 0.0)  # no nearer than the base's


def test_what_the_base_shows_as_much_is_not_recognised(references):
    pictures = views(("anna", "rex"), ("rex",), ("anna",))
    assert measured(references, pictures, base=pictures).recognised == (0.0, 0.0)


def test_a_single_thing_may_stand_anywhere_and_a_style_is_everywhere(references):
    kinds, prompts = ("subject", "style"), ("{1}, {2}",)
    row = measured(references, views(("oil",), (), ("rex",)), kinds=kinds, prompts=prompts)
    assert row.recognised == (1.0, 1.0) and row.all_recognised == 1.0
    row = measured(references, views((), ("oil",), ("rex",)), kinds=kinds, prompts=prompts)
    assert row.recognised == (1.0, 0.0) and row.all_recognised == 0.0


def test_two_things_and_a_style(references):
    kinds, prompts = ("person", "subject", "style"), ("{1} and {2}, {3}",)
    assert (
        measured(references, views(("oil",), ("anna",), ("rex",)), kinds=kinds, prompts=prompts).all_recognised == 1.0
    )
    assert measured(references, views((), ("anna",), ("rex",)), kinds=kinds, prompts=prompts).all_recognised == 0.0


def test_one_figure_that_blends_both_is_not_two(references):
    blend = views(("anna", "rex"), ("anna", "rex"), ("anna", "rex"))
    row = measured(references, blend)
    assert row.recognised == (1.0, 1.0) and row.all_recognised == 0.0


def test_impostors_have_the_concepts_own_class_word(references):
    settings, words = table(draws=2), {**KINDS, "rex": "dog", "pip": "rocket"}
    dog = views(("rex",), ("rex",), ())  # the base's dog looks as much like rex as rex does
    found = {
        Combination(("anna", "rex"), ("anna", "rex")): CombinationViews(dog, (NOTHING, dog), NOTHING),
        Combination(("anna", "pip"), ("anna", "pip")): CombinationViews(dog, (NOTHING, NOTHING), NOTHING),
    }
    person = words["anna"]
    impostors = {(person, "dog"): dog, (person, "rocket"): NOTHING}
    first, _ = measure_groups(settings, "v", 0, found, impostors, references, words)
    assert first.recognised == (0.0, 0.0)
    swapped = {(person, "dog"): NOTHING, (person, "rocket"): dog}  # a rocket like rex does not matter to rex
    assert measure_groups(settings, "v", 0, found, swapped, references, words)[0].recognised == (0.0, 1.0)
    first, _ = measure_groups(settings, "v", 0, found, impostors, references, words, identity_cosine=0.5)
    assert first.recognised == (0.0, 1.0)  # a published threshold judges instead


PAIR = ("person", "subject")


def measurement(shown, seed, share):
    return GroupMeasurement("pairs", "v", seed, shown, (share, 1.0), (0.5, 0.5), share, (share, 0.5), (0.1, 0.1), 0.0)


def test_a_summary_is_over_combinations_and_seeds():
    rows = [measurement(("a", "b"), seed, share) for seed, share in enumerate((0.25, 0.75))]
    rows += [measurement(("a", "c"), seed, 1.0) for seed in range(2)]
    summary = summarise_groups(rows, PAIR)
    assert summary.all_recognised.value == pytest.approx(0.75)
    assert summary.all_recognised.low < 0.75 < summary.all_recognised.high
    assert [part.value for part in summary.recognised] == pytest.approx([0.75, 1.0])
    assert [part.value for part in summary.alone] == pytest.approx([0.75, 0.5])
    assert summary.of_expected is not None and summary.of_expected.value == pytest.approx(2.0)
    assert summary.of_expected.low == pytest.approx(2.0) == summary.of_expected.high  # of the same draws
    assert summarise_groups([replace(row, alone=(0.0, 1.0)) for row in rows], PAIR).of_expected is None
    with pytest.raises(ConfigurationError, match="3 measurements of 2 combinations and 2 seeds"):
        summarise_groups(rows[:3], PAIR)
    with pytest.raises(ConfigurationError, match="a summary of 0 tables"):
        summarise_groups([], PAIR)
