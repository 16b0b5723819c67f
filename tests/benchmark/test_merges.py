"""Which concepts meet in which merge."""

import pytest

from orthoplex.benchmark.merges import MergeSettings, merge_groups
from orthoplex.errors import ConfigurationError

NAMES = [f"c{number:02d}" for number in range(10)]


def test_without_settings_all_meet_once():
    ((size, (group,)),) = merge_groups(MergeSettings(), NAMES).items()
    assert size == 10 and group.members == group.measured == tuple(NAMES)


def test_every_concept_is_measured_once_in_every_draw_with_other_companions():
    groups = merge_groups(MergeSettings(sizes=(3,), draws=5), NAMES)[3]
    assert len(groups) == 5 * 4 and all(len(set(group.members)) == 3 for group in groups)
    for draw in range(5):
        part = groups[4 * draw : 4 * draw + 4]
        assert sorted(name for group in part for name in group.measured) == NAMES
        assert all(set(group.measured) <= set(group.members) for group in part)
    companions = {frozenset(group.members) for group in groups if "c00" in group.measured}
    assert len(companions) > 1


def test_only_some_are_measured_the_others_are_companions():
    settings = MergeSettings(sizes=(2, 6), measured=("c01", "c04", "c07"))
    groups = merge_groups(settings, NAMES)
    assert sorted(name for group in groups[2] for name in group.measured) == ["c01", "c04", "c07"]
    assert [len(group.measured) for group in groups[6]] == [3]
    assert all(len(set(group.members)) == size for size, parts in groups.items() for group in parts)


def test_the_seed_decides_and_all_with_all_is_drawn_once():
    settings = MergeSettings(sizes=(4, 10), draws=3)
    assert merge_groups(settings, NAMES) == merge_groups(settings, NAMES)
    assert merge_groups(settings, NAMES) != merge_groups(MergeSettings(sizes=(4, 10), draws=3, seed=1), NAMES)
    assert len(merge_groups(settings, NAMES)[10]) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": (0,)}, r"merges sizes is \(0,\); allowed are lists of whole numbers from 1"),
        ({"draws": 0}, "merges draws is 0; allowed are whole numbers from 1"),
        ({"sizes": (11,)}, "merges have the size 11; allowed: 1 to 10, the concepts"),
        ({"sizes": (3, 3)}, "merges have the size 3 2 times; allowed: once"),
        ({"measured": ("c01", "c01")}, "merges measure 'c01' 2 times; allowed: once"),
        ({"measured": ("nobody",)}, "merges measure 'nobody'; allowed: c00, c01"),
    ],
)
def test_what_cannot_be_is_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        MergeSettings(**values).check(NAMES)
