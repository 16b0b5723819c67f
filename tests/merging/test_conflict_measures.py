"""Comparisons of changes, on matrices whose answer is known and against whole matrices."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.merging.conflict_measures import WIDEST_RANK, measure_layer
from orthoplex.merging.conflict_sums import sign_conflict


def random_changes(*ranks, shape=(10, 8)):
    generator = torch.Generator().manual_seed(1)
    return [
        LowRank(torch.randn(shape[0], r, generator=generator), torch.randn(r, shape[1], generator=generator))
        for r in ranks
    ]


@pytest.mark.parametrize("ranks", [(3, 3), (1, 4, 2), (5,)], ids=str)
def test_factors_give_what_whole_matrices_give(ranks):
    changes, strengths = random_changes(*ranks), [0.5 + i for i in range(len(ranks))]
    measures = measure_layer("unet.x", changes, strengths)
    deltas = [s * change.delta() for change, s in zip(changes, strengths, strict=True)]
    for a, first in enumerate(deltas):
        for b, second in enumerate(deltas):
            for name, expected in (
                ("inner", (first * second).sum()),
                ("inputs", (first @ second.T).square().sum()),
                ("outputs", (first.T @ second).square().sum()),
                ("products", (first * second).abs().sum()),
                ("signed", (first * second).sum()),
            ):
                value = float(getattr(measures, name)[a, b])
                assert value == pytest.approx(float(expected), rel=1e-4, abs=1e-4), (name, a, b)


def test_a_change_of_high_rank_is_compared_exactly_where_it_can_be():
    low, high = random_changes(2, WIDEST_RANK + 4, shape=(140, 150))
    measures = measure_layer("unet.x", [low, high], [1.0, 2.0])
    assert float(measures.inner[0, 1]) == pytest.approx(float((low.delta() * 2 * high.delta()).sum()), rel=1e-3)
    assert float(measures.inner[1, 1]) == pytest.approx(float((2 * high.delta()).square().sum()), rel=1e-5)
    whole = (low.delta() @ (2 * high.delta()).T).square().sum()
    assert float(measures.inputs[0, 1]) == pytest.approx(float(whole), rel=0.05)


def test_half_precision_and_large_numbers_do_not_overflow():
    change = LowRank(torch.full((2, 1), 60000.0, dtype=torch.float16), torch.full((1, 2), 1.0, dtype=torch.float16))
    measures = measure_layer("unet.x", [change, change], [1.0, 1.0])
    assert float(measures.inner[0, 1]) == pytest.approx(4 * 60000.0**2)


def test_the_signs_of_opposite_changes_all_disagree():
    (change,) = random_changes(2)
    measures = measure_layer("unet.x", [change, change.scaled(-1.0)], [1.0, 1.0])
    signs = sign_conflict(measures.products, measures.signed)
    assert signs.tolist() == [
        [pytest.approx(0.0, abs=1e-5), pytest.approx(1.0)],
        [pytest.approx(1.0), pytest.approx(0.0, abs=1e-5)],
    ]
    assert float(sign_conflict(torch.zeros(1), torch.zeros(1))) == 0.5


def test_signs_are_sampled_from_rows_that_the_layer_decides():
    changes = random_changes(3, 3, shape=(300, 200))
    one, again, other = (measure_layer(layer, changes, [1.0, 1.0]) for layer in ("a", "a", "b"))
    assert torch.equal(one.products, again.products) and not torch.equal(one.products, other.products)
    share = float(sign_conflict(one.products, one.signed)[0, 1])
    first, second = (change.delta() for change in changes)
    product = first * second
    assert share == pytest.approx(float(product[product < 0].abs().sum() / product.abs().sum()), abs=0.05)
