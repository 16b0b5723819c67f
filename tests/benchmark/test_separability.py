"""The choice of features: what is far apart is told apart."""

import pytest
from torch import tensor

from orthoplex.benchmark import sample_sources
from orthoplex.benchmark.measurement import References
from orthoplex.benchmark.separability import Separability, compare_encoders, separability, separability_table
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.errors import ConfigurationError

EAST, NORTH, DIAGONAL = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]


def test_separability_of_two():
    references = {
        "anna": References("person", tensor([EAST]), tensor([EAST, DIAGONAL])),
        "rex": References("person", tensor([NORTH]), tensor([NORTH])),
    }
    # anna: cosines 1 and .6 to her own, 0 and .8 to rex; one of two nearer to her; rex's pictures score 0
    # rex: 1 to his own, 0 to anna; anna's score 0, 0 and .8: the threshold is .8
    assert separability(references, "person") == Separability(
        recognised=pytest.approx(0.75), identity=pytest.approx(1.0), own=pytest.approx(0.9), others=pytest.approx(0.2)
    )


def test_every_choice_is_a_row(sources):
    rows = compare_encoders(sources[:2], [EncoderSettings("stem", 32), EncoderSettings("block-3", 32)])
    assert [row["encoder"] for row in rows] == ["mobilenetv2-stem-32px-grid1", "mobilenetv2-block-3-32px-grid1"]
    assert rows[1]["kinds"]["person"]["recognised"] == 1.0  # red against blue
    assert rows[1]["milliseconds_per_picture"] > 0


def test_the_table_is_written_out():
    kinds = {"person": {"recognised": 1.0, "identity": 0.5, "own": 0.876, "others": 0.25}}
    table = separability_table([{"encoder": "stem", "kinds": kinds, "milliseconds_per_picture": 5.6}])
    assert "| stem | 1.00, 0.50, 0.88 / 0.25 | 6 |" in table
    assert "person: recognised, identity, own / others" in table


def test_the_sample_concepts_are_twelve_of_four_kinds():
    kinds = [source.kind for source in sample_sources()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"person": 3, "subject": 3, "scene": 3, "style": 3}
    assert [source.name for source in sample_sources(["otto", "anna"])] == ["anna", "otto"]


def test_an_unknown_sample_concept_is_refused():
    with pytest.raises(ConfigurationError, match=r"'bob' is no sample concept; allowed: anna"):
        sample_sources(["bob"])
