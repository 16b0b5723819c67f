"""The algorithm that suits a set of concepts."""

from dataclasses import replace

import pytest
import torch

from orthoplex.merging import ALGORITHMS, suited_algorithm
from tests.pico import TEXT_WIDTH, make_concept


@pytest.fixture
def kept(pico):
    inputs = torch.ones(2, TEXT_WIDTH, dtype=torch.float16)
    return [
        replace(make_concept(pico, name, selection="cross-attention-kv"), inputs=inputs) for name in ("anna", "rex")
    ]


def test_concepts_that_keep_what_their_layers_see_are_brought_together_by_least_squares(pico, kept):
    name, options = suited_algorithm([*kept, make_concept(pico, "boro", selection="none")])
    assert name == "least-squares" and options == {"foreign": 3.0} and ALGORITHMS[name](**options)


def test_one_alone_or_one_that_keeps_nothing_is_a_sum(pico, kept):
    tokens = make_concept(pico, "boro", selection="none")
    for concepts in (kept[:1], [kept[0], tokens], [*kept, make_concept(pico, "ada")], [tokens], []):
        assert suited_algorithm(concepts) == ("sum", {})
