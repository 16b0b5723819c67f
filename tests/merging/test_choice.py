"""The algorithm that suits a set of concepts."""

import pytest

from orthoplex.merging import ALGORITHMS, suited_algorithm
from tests.pico import make_concept


@pytest.fixture
def kept(pico):
    return [(make_concept(pico, name, selection="cross-attention-kv"), 1.0) for name in ("anna", "rex")]


def test_concepts_on_keys_and_values_are_brought_together_by_least_squares(pico, kept):
    name, options = suited_algorithm([*kept, (make_concept(pico, "boro", selection="none"), 1.0)])
    assert name == "least-squares" and options == {"foreign": 3.0} and ALGORITHMS[name](**options)


def test_one_alone_or_one_whose_layers_see_pictures_is_a_sum(pico, kept):
    tokens, wide = ((make_concept(pico, "boro", selection=layers), 1.0) for layers in ("none", "attention"))
    muted = (kept[1][0], 0.0)
    for concepts in (kept[:1], [kept[0], tokens], [kept[0], muted], [*kept, wide], [tokens], []):
        assert suited_algorithm(concepts) == ("sum", {})
