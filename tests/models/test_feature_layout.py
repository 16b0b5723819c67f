"""Text features that carry more than one vector a position: what lies where, and which widths are refused."""

from __future__ import annotations

import pytest
import torch

from orthoplex.errors import BaseModelError
from orthoplex.models.words.layout import FeatureLayout

LAYOUT = FeatureLayout(num_layers=3, dim=2, num_marks=1)
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
    layout = FeatureLayout(num_layers=1, dim=2, num_marks=2)
    own, marks = layout.own(torch.tensor([[[5.0, 6.0, 0.0, 1.0]]]), 9)
    assert own.tolist() == [[[5.0, 6.0]]] and marks.tolist() == [[[0.0, 1.0]]]


def test_features_are_plain_or_whole():
    assert LAYOUT.is_plain(torch.zeros(1, 4, 2)) and not LAYOUT.is_plain(FEATURES)
    for width in (1, 3, 6, 8):
        message = f"text features have the width {width}; allowed are 2, the encoder's own, and 7, as it gives them"
        with pytest.raises(BaseModelError, match=message):
            LAYOUT.is_plain(torch.zeros(1, 4, width))
