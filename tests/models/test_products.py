"""Products: one rounding, in pieces of bounded memory, in half precision where that costs nothing, block by block."""

from __future__ import annotations

import math

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.errors import ConfigurationError
from orthoplex.models.weights import product_traits, products
from orthoplex.models.weights.arrangement import ArrangedFactors
from orthoplex.models.weights.factor_facts import HALVES, facts_of
from orthoplex.models.weights.product_traits import full_precision, traits_of
from tests.folding import folded_weight

FIRST = LowRank(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0, 1.0], [6.0, 0.0, 2.0]]))


def problem(dtype: torch.dtype, strength: float = 1.0) -> tuple[torch.Tensor, Stack, torch.Tensor]:
    """Return a weight of a usual size, twelve changes of a tenth of it together, and the float64 sum."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(96, 64, generator=generator) / 8).to(dtype)
    parts = [
        LowRank(torch.randn(96, 4, generator=generator) / 80, torch.randn(4, 64, generator=generator) / 8)
        for _ in range(12)
    ]
    exact = weight.double() + sum(strength * part.up.double() @ part.down.double() for part in parts)
    return weight, Stack.stack([Stack.of(str(i), part, strength) for i, part in enumerate(parts)]), exact


def errors(folded: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the error beside that of rounding the exact sum once."""
    return float((folded.double() - exact).norm() / (exact.to(folded.dtype).double() - exact).norm())


def test_a_change_written_out():
    weight = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    folded = folded_weight(weight, Stack.of("anna", FIRST, 0.5))
    assert folded.tolist() == [[11.5, 20, 30.5], [43, 50, 61]] and weight[0, 0] == 10


@pytest.mark.parametrize("strength", (0.02, 1.0, 7.0, -300.0))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_the_sum_is_rounded_once(dtype, strength):
    weight, change, exact = problem(dtype, strength)
    assert errors(folded_weight(weight, change), exact) < (1.1 if dtype in HALVES else max(2, abs(strength)))


def test_adding_one_after_the_other_costs_more():
    weight, change, exact = problem(torch.bfloat16)
    one_by_one = weight
    for run in change.runs:
        one_by_one = one_by_one + run.change.delta().to(torch.bfloat16)
    assert errors(one_by_one, exact) > 2


def test_float64_stays_float64():
    weight, change, exact = problem(torch.float64)
    torch.testing.assert_close(folded_weight(weight, change), exact, atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_half_precision_is_left_where_factors_would_be_rounded_away(dtype, monkeypatch):
    types = []
    original = products._product_type
    monkeypatch.setattr(products, "_product_type", lambda *given: types.append(original(*given)) or types[-1])
    for strength, expected in ((0.5, dtype), (300.0, torch.float32)):
        types.clear()
        weight, change, _ = problem(dtype, strength)
        folded_weight(weight, change)
        assert set(types) == {expected if traits_of(dtype, torch.device("cpu")).is_exact else torch.float32}


def test_small_numbers_of_float16_are_multiplied_in_float32():
    weight = torch.full((64, 64), 1e-4, dtype=torch.float16)
    change = LowRank(torch.full((64, 1), 3e-8), torch.full((1, 64), 1e3))  # float16 makes 6e-8 of 3e-8
    folded = folded_weight(weight, Stack.of("anna", change))
    assert torch.equal(folded, (weight.double() + 3e-5).half())


@pytest.mark.parametrize("piece_bytes", (1, 700, 5000, 40_000))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_pieces_of_any_size_give_the_same_but_for_rounding(piece_bytes, dtype, monkeypatch):
    weight, change, exact = problem(dtype)
    whole = folded_weight(weight, change)
    monkeypatch.setattr(products, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(products, "_MOST_COLUMNS", 7)
    assert errors(folded_weight(weight, change), exact) < (1.01 if dtype in HALVES else 6) and whole.dtype == dtype


def test_blocks_are_multiplied_alone_and_nothing_else_is_written():
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(1))
    parts = []
    for slot in range(4):
        change = LowRank(torch.zeros(64, 3), torch.randn(3, 48, generator=torch.Generator().manual_seed(slot)))
        change.up[16 * slot : 16 * slot + 16] = torch.randn(16, 3, generator=torch.Generator().manual_seed(9 + slot))
        parts.append(Stack.of(str(slot), change, 0.5 + slot))
    both = Stack.stack(parts[1:3])
    blocks = products.blocks_of(both.runs, (64, 48), facts_of(run.change for run in both.runs))
    assert [block.rows for block in blocks] == [(16, 32), (32, 48)] and products.are_apart(blocks)
    folded = folded_weight(weight, both)
    assert torch.equal(folded[:16], weight[:16]) and torch.equal(folded[48:], weight[48:])
    torch.testing.assert_close(folded, weight + both.delta())


def test_facts_of_factors_written_out():
    change = LowRank(torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.0, 0.5]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]]))
    facts = facts_of([change])[change]
    assert (facts.peak, facts.down_peak, facts.rows, facts.columns) == (1 * 4 + 2 * 1, 4, (1, 3), (1, 2))
    assert facts.roundings == {torch.bfloat16: 0.0, torch.float16: 0.0}
    nothing = LowRank(torch.zeros(3, 1), torch.zeros(1, 2))
    assert facts_of([nothing])[nothing].rows == (0, 0) and facts_of([change])[change] is facts


def test_the_expected_error_of_rounded_factors_is_that_of_rounding_them():
    generator = torch.Generator().manual_seed(2)
    change = LowRank(torch.randn(256, 8, generator=generator), torch.randn(8, 192, generator=generator))
    for dtype, expected in facts_of([change])[change].roundings.items():
        rounded = change.up.to(dtype).double() @ change.down.to(dtype).double()
        error = float((rounded - change.up.double() @ change.down.double()).square().sum())
        assert 0.5 * expected < error < expected


def random_change(generator: torch.Generator) -> LowRank:
    return LowRank(torch.randn(24, 3, generator=generator), torch.randn(3, 16, generator=generator))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_arranged_factors_give_the_same_bits(dtype):
    generator = torch.Generator().manual_seed(3)
    layers = [{f"layer {i}": random_change(generator) for i in range(4)} for _ in range(2)]
    plain, arranged = ArrangedFactors(), ArrangedFactors()
    arranged.arrange(layers[0], dtype, torch.device("cpu"))
    assert arranged.num_bytes == 4 * 3 * (24 + 16) * dtype.itemsize
    chosen = [[layers[run][f"layer {i}"] for i in (1, 2, 3)] for run in (0, 1)]
    results = []
    for factors in (plain, arranged):
        ups, downs = torch.zeros(3, 20, 6, dtype=dtype), torch.zeros(3, 6, 10, dtype=dtype)
        factors.gather(chosen, [[0.7] * 3, [1.0, 0.3, 2.0]], ups, downs, slice(4, 24), slice(0, 10))
        results.append((ups, downs))
    assert all(map(torch.equal, *results))
    expected = (layers[1]["layer 2"].down[:, :10].to(dtype).float() * 0.3).to(dtype)
    assert torch.equal(results[0][1][1, 3:], expected)


def test_traits_are_measured():
    traits = traits_of(torch.float32, torch.device("cpu"))
    assert traits.is_exact and traits.batch_step in (0, 1, torch.get_num_threads())  # float32 is never rounded between


def test_products_that_round_between_are_seen():
    generator = torch.Generator().manual_seed(4)
    weights, ups, downs = (
        torch.randn(2, *shape, generator=generator).bfloat16() for shape in ((64, 64), (64, 200), (200, 64))
    )
    once = torch.baddbmm(weights.float(), ups.float(), downs.float()).bfloat16()
    between = weights + (ups.float() @ downs.float()).bfloat16()
    assert product_traits._is_rounded_once(once, weights, ups, downs)
    assert not product_traits._is_rounded_once(between, weights, ups, downs)


def test_coarse_products_of_float32_are_not_used():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
        weight, change, exact = problem(torch.float32)
        assert errors(folded_weight(weight, change), exact) < 1.5
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("dtype", "value"), [(torch.float16, 300.0), (torch.float32, math.inf), (torch.bfloat16, math.nan)]
)
def test_numbers_that_are_not_finite_are_refused(dtype, value):
    change = LowRank(torch.full((4, 1), value), torch.full((1, 4), 300.0))
    with pytest.raises(
        ConfigurationError, match="layer 'layer': with the change, numbers of the weight are no longer f"
    ):
        folded_weight(torch.zeros(4, 4, dtype=dtype), Stack.of("anna", change))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_factors_that_overflow_before_the_product_are_seen(dtype):
    change = LowRank(torch.full((4, 1), 1e-6), torch.full((1, 4), 1e6))
    for strength in (1e35, 1e39, -1e300):
        with pytest.raises(ConfigurationError, match="no longer finite"):
            folded_weight(torch.zeros(4, 4, dtype=dtype), Stack.of("anna", change, strength))
    small = LowRank(torch.full((4, 1), 0.01), torch.full((1, 4), 1000.0))
    expected = torch.full((4, 4), 2000.0)
    assert torch.equal(
        folded_weight(torch.zeros(4, 4, dtype=dtype), Stack.of("anna", small, 200.0)), expected.to(dtype)
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_small_products_are_made_in_float32(dtype):
    generator = torch.Generator().manual_seed(6)
    for shape, rank in (((32, 36), 20), ((320, 1), 3), ((320, 32), 1)):
        weight = (torch.rand(*shape, generator=generator) / 6).to(dtype)
        change = LowRank(
            0.01 * torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
        )
        folded = folded_weight(weight, Stack.of("anna", change))
        assert errors(folded, weight.double() + change.up.double() @ change.down.double()) < 1.001
