"""Formulas on small matrices, with the answers written out."""

import math

import pytest
import torch
from torch import tensor

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.evaluation import (
    NOTHING,
    comparable_references,
    has_features,
    identity_rate,
    identity_threshold,
    image_alignment,
    recognised,
    recognised_rate,
    scores,
)

HALF = math.sqrt(0.5)
EAST, NORTH, NORTH_EAST = [1.0, 0.0], [0.0, 1.0], [HALF, HALF]


def test_image_alignment_is_the_mean_of_all_pairs():
    # cosines: east-east 1, east-north 0, diagonal-east .7071, diagonal-north .7071
    pictures, references = tensor([EAST, NORTH_EAST]), tensor([EAST, NORTH])
    assert image_alignment(pictures, references) == pytest.approx((1 + 0 + HALF + HALF) / 4)


def test_image_alignment_of_opposites_is_minus_one():
    assert image_alignment(tensor([EAST]), tensor([[-1.0, 0.0]])) == pytest.approx(-1.0)


def test_scores_against_the_unit_centroid():
    # the centroid of east and north points north-east, whatever its length
    result = scores(tensor([EAST, NORTH_EAST]), {"a": tensor([EAST, NORTH]), "b": tensor([EAST])})
    torch.testing.assert_close(result, tensor([[HALF, 1.0], [1.0, HALF]], dtype=torch.float64), atol=1e-6, rtol=0)


def test_recognised_names_the_nearest_centroid():
    gallery = {"mixed": tensor([EAST, NORTH]), "diagonal": tensor([[0.8, 0.6]])}
    assert recognised(tensor([EAST]), gallery) == ["diagonal"]  # .7071 against .8


def test_recognised_gives_a_tie_to_the_earlier_name():
    assert recognised(tensor([EAST]), {"first": tensor([EAST]), "second": tensor([EAST])}) == ["first"]


def test_recognised_rate_counts_pictures():
    gallery = {"anna": tensor([EAST]), "rex": tensor([NORTH])}
    pictures = tensor([EAST, EAST, [0.6, 0.8], EAST])
    assert recognised_rate(pictures, gallery, "anna") == 0.75
    assert recognised_rate(pictures, gallery, "rex") == 0.25


def test_an_impostor_in_the_gallery_takes_pictures_away():
    pictures, anna = tensor([EAST, NORTH]), {"anna": tensor([NORTH_EAST])}
    assert recognised_rate(pictures, anna, "anna") == 1.0
    assert recognised_rate(pictures, anna | {"(base)": tensor([NORTH])}, "anna") == 0.5


def test_threshold_lets_five_of_a_hundred_impostors_pass():
    impostors = torch.arange(100) / 100
    threshold = identity_threshold(impostors[torch.randperm(100)])
    assert threshold == pytest.approx(0.94)
    assert int((impostors.double() > threshold).sum()) == 5


def test_threshold_of_few_impostors_lets_none_pass():
    assert identity_threshold(tensor([0.1, 0.7, 0.3])) == pytest.approx(0.7)


def test_threshold_at_half():
    assert identity_threshold(tensor([0.1, 0.2, 0.3, 0.4]), false_positive_rate=0.5) == pytest.approx(0.2)


def test_identity_rate_is_strict():
    pictures = tensor([EAST, NORTH_EAST, NORTH])
    assert identity_rate(pictures, tensor([EAST]), 0.5) == pytest.approx(2 / 3)
    assert identity_rate(pictures, tensor([EAST]), 1.0) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_alignment(torch.zeros(0, 2), tensor([EAST])), r"pictures have the shape \(0, 2\)"),
        (lambda: image_alignment(tensor([EAST]), tensor(EAST)), r"references have the shape \(2,\)"),
        (lambda: image_alignment(tensor([EAST]), torch.ones(1, 3)), "2 features and references 3"),
        (lambda: scores(tensor([EAST]), {}), "the gallery is empty"),
        (lambda: recognised_rate(tensor([EAST]), {"a": tensor([EAST])}, "b"), "'b' is not in the gallery; allowed: a"),
        (lambda: identity_threshold(torch.zeros(0)), "0 impostor scores"),
        (lambda: identity_threshold(torch.zeros(3), false_positive_rate=1.0), "false_positive_rate is 1.0"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(call, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        call()
    assert "allowed" in str(caught.value)


def test_a_row_of_zeros_is_nothing():
    nothing = [0.0, 0.0]
    rows = tensor([EAST, nothing])
    assert has_features(rows).tolist() == [True, False]
    assert torch.equal(comparable_references(rows, "anna"), tensor([EAST]))
    assert comparable_references(rows[:0], "nobody").shape == (0, 2)
    assert recognised(rows, {"a": tensor([NORTH]), "b": tensor([EAST])}) == ["b", NOTHING]
    assert recognised_rate(rows, {"a": tensor([NORTH]), "b": tensor([EAST])}, "b") == 0.5
    assert identity_rate(rows, tensor([EAST]), -1.0) == 0.5
    assert image_alignment(rows, tensor([EAST])) == 0.5
    with pytest.raises(DatasetError, match="anna: the encoder found nothing to compare in any of 2 pictures; allowed"):
        comparable_references(tensor([nothing, nothing]), "anna")
