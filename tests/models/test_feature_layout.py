"""Text features that carry more than one vector a position: what lies where, and which widths are refused."""

from __future__ import annotations

import pytest
import torch

from orthoplex.errors import BaseModelError
from orthoplex.models.words.feature_layout import FeatureBlock, FeatureLayout

LAYOUT = FeatureBlock(num_layers=3, dim=2, num_marks=1)
FEATURES = torch.tensor([[[10.0, 11.0, 20.0, 21.0, 30.0, 31.0, 1.0]]])


def test_groups_lie_layer_by_layer_and_marks_behind_them():
    groups, marks = LAYOUT.apart(FEATURES)
    assert LAYOUT.width == 7 and groups.tolist() == [[[[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]]]]
    assert marks.tolist() == [[[1.0]]] and torch.equal(LAYOUT.together(groups, marks == 1), FEATURES)
    assert [LAYOUT.own(FEATURES, i)[0].tolist() for i in range(3)] == [
        [[[10.0, 11.0]]],
        [[[20.0, 21.0]]],
        [[[30.0, 31.0]]],
    ]


def test_one_group_serves_all_layers():
    layout = FeatureBlock(num_layers=1, dim=2, num_marks=2)
    own, marks = layout.own(torch.tensor([[[5.0, 6.0, 0.0, 1.0]]]), 9)
    assert own.tolist() == [[[5.0, 6.0]]] and marks.tolist() == [[[0.0, 1.0]]]


def test_features_are_plain_or_whole():
    assert LAYOUT.is_plain(torch.zeros(1, 4, 2)) and not LAYOUT.is_plain(FEATURES)
    for width in (1, 3, 6, 8):
        message = (
            f"text features have the width {width}; allowed are 2, the text encoders' own, and 7, as they give them"
        )
        with pytest.raises(BaseModelError, match=message):
            LAYOUT.is_plain(torch.zeros(1, 4, width))


def test_every_encoder_has_a_block_and_layers_read_their_part_of_each():
    layout = FeatureLayout((FeatureBlock(2, 2, 1), FeatureBlock(2, 3, 1)))
    assert (layout.dim, layout.width) == (5, 12)
    first = [10.0, 11.0, 20.0, 21.0, 1.0]
    second = [100.0, 101.0, 102.0, 200.0, 201.0, 202.0, 1.0]
    features = torch.tensor([[[*first, *second]]])
    assert layout.own(features, 0)[0].tolist() == [[[10.0, 11.0, 100.0, 101.0, 102.0]]]
    own, marks = layout.own(features, 1)
    assert own.tolist() == [[[20.0, 21.0, 200.0, 201.0, 202.0]]] and marks.tolist() == [[[1.0]]]
    assert layout.is_plain(torch.zeros(1, 4, 5)) and not layout.is_plain(features)
    with pytest.raises(BaseModelError, match="text features have the width 7; allowed are 5, .*, and 12, as"):
        layout.is_plain(torch.zeros(1, 4, 7))
