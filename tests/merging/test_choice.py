"""The algorithm that suits a set of concepts."""

from dataclasses import replace
from pathlib import Path

import pytest

from orthoplex.merging import ALGORITHMS, default_algorithm, merge
from tests.pico import make_concept


@pytest.fixture
def kept(pico):
    return [(make_concept(pico, name, selection="cross-attention-kv"), 1.0) for name in ("anna", "rex")]


def test_concepts_on_keys_and_values_are_brought_together_by_least_squares(pico, kept):
    chosen = default_algorithm([*kept, (make_concept(pico, "boro", selection="none"), 1.0)])
    assert chosen.name == "least-squares" and chosen.options == {"foreign": 3.0} and chosen.fallback is None
    assert ALGORITHMS[chosen.name](**chosen.options)


def test_one_alone_or_one_whose_layers_see_pictures_is_a_sum(pico, kept):
    tokens, wide = ((make_concept(pico, "boro", selection=layers), 1.0) for layers in ("none", "attention"))
    muted = (kept[1][0], 0.0)
    for concepts in (kept[:1], [kept[0], tokens], [kept[0], muted], [*kept, wide], [tokens], []):
        chosen = default_algorithm(concepts)
        assert (chosen.name, chosen.options) == ("sum", {})
        assert (chosen.fallback is not None) == (wide in concepts)


def test_a_mere_sum_names_the_file_that_made_it_and_the_cure(pico, kept, caplog):
    wide = replace(make_concept(pico, "boro"), path=Path("loud/boro.safetensors"))
    merge([*kept, (wide, 1.0)])
    (message,) = caplog.messages
    assert "3 concepts are merged by a plain sum, because boro (loud/boro.safetensors) changes" in message
    assert "layers = 'cross-attention-kv'" in message and "'least-squares'" in message
    caplog.clear()
    merge([*kept, (wide, 1.0)], algorithm="sum")  # asked for: nothing to tell
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        ({}, "Make it silent where it is not named, with orthoplex adopt, or merge by the algorithm 'least-squares'"),
        ({"erasure": 30.0}, "keeps less of each. Merge by the algorithm 'least-squares'"),
    ],
)
def test_a_file_of_another_program_is_not_to_be_trained(pico, kept, training, advice):
    wide = make_concept(pico, "boro")
    foreign = replace(wide, manifest=replace(wide.manifest, method="foreign", training=training))
    fallback = default_algorithm([*kept, (foreign, 1.0)]).fallback
    assert fallback is not None and advice in fallback and "Train it" not in fallback
