"""The numbers drawn from SHA-256: fixed for ever, and fair."""

import hashlib
import itertools
import math
from collections import Counter

import pytest

from orthoplex.subspaces.stream import draw_below, draw_normals, draw_subset, hash_words


def test_words_are_the_digests_of_seed_and_counter_cut_in_four():
    seed = hashlib.sha256(b"2:ab,1:c,").digest()
    first, second = (hashlib.sha256(seed + counter.to_bytes(8, "big")).digest() for counter in (0, 1))
    expected = [int.from_bytes((first + second)[start : start + 8], "big") for start in range(0, 64, 8)]
    assert list(itertools.islice(hash_words("ab", "c"), 8)) == expected


def test_parts_are_kept_apart():
    assert next(hash_words("ab", "c")) != next(hash_words("a", "bc")) != next(hash_words("abc"))


def test_numbers_of_the_incomplete_round_are_skipped():
    limit = (1 << 64) // 10 * 10
    assert draw_below(iter([limit, limit + 3, 27]), 10) == 7


def test_subset_by_hand():
    # places: swap 0 with 0+2, then 1 with 1+0, then 2 with 2+2
    assert draw_subset(iter([2, 0, 2]), 5, 3) == [2, 1, 4]


def test_subsets_are_fair():
    words = hash_words("fair")
    pairs = Counter(tuple(sorted(draw_subset(words, 5, 2))) for _ in range(4000))
    assert len(pairs) == 10
    assert all(abs(count - 400) < 5 * math.sqrt(400 * 0.9) for count in pairs.values())


def test_normals_are_box_and_muller():
    quarter = (1 << 64) // 4
    zero_radius_word = (1 << 64) - 1
    assert draw_normals(iter([quarter, 0]), 2) == pytest.approx([math.sqrt(2 * math.log(4)), 0.0], abs=1e-7)
    assert draw_normals(iter([zero_radius_word, quarter]), 1) == [0.0]
    assert all(map(math.isfinite, draw_normals(iter([0, 0]), 2)))


def test_normals_have_the_moments_of_the_normal_distribution():
    normals = draw_normals(hash_words("normals"), 20001)
    assert len(normals) == 20001
    mean = sum(normals) / len(normals)
    assert abs(mean) < 4 / math.sqrt(len(normals))
    assert abs(sum(value**2 for value in normals) / len(normals) - 1) < 4 * math.sqrt(2 / len(normals))
    assert abs(sum(abs(value) > 1.959964 for value in normals) / len(normals) - 0.05) < 0.007
