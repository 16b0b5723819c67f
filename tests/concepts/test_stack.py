"""Stacks: changes of one weight whose columns and strengths stay apart, in small numbers and as laws."""

from __future__ import annotations

import itertools

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.errors import ConfigurationError

ANNA = LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0]]))
REX = LowRank(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0, 1.0]]))
BOTH = Stack.stack([Stack.of("anna", ANNA), Stack.of("rex", REX, 0.5)])


def random_change(seed: int, rank: int, dtype: torch.dtype = torch.float32) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(24, rank, generator=generator).to(dtype), torch.randn(rank, 64, generator=generator).to(dtype)
    )


def random_parts(dtype: torch.dtype = torch.float32) -> dict[str, tuple[LowRank, float]]:
    return {f"concept {i}": (random_change(i, 1 + i, dtype), 0.3 * i - 0.7) for i in range(6)}


def stacked(parts: dict[str, tuple[LowRank, float]]) -> Stack:
    return Stack.stack([Stack.of(owner, change, strength) for owner, (change, strength) in parts.items()])


def exact(parts: dict[str, tuple[LowRank, float]]) -> torch.Tensor:
    return sum(strength * change.up.double() @ change.down.double() for change, strength in parts.values())


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() < 1e-6 * expected.norm())


def test_a_stack_written_out():
    assert BOTH.owners == (("anna", 1), ("rex", 1)) and BOTH.strengths.tolist() == [1.0, 0.5]
    assert BOTH.shape == (2, 2) and BOTH.rank == 2 and BOTH.is_owned
    assert BOTH.up.tolist() == [[1, 0], [2, 4]] and BOTH.down.tolist() == [[3, 0], [1, 1]]
    assert BOTH.low_rank.up.tolist() == [[1, 0], [2, 2]]
    assert BOTH.delta().tolist() == [[3, 0], [8, 2]]
    assert BOTH.scaled(0.5).delta().tolist() == [[1.5, 0], [4, 1]]
    assert BOTH.scaled(0.5).strengths.tolist() == [1.0, 0.5]
    assert BOTH.with_strength("rex", 1.0).delta().tolist() == [[3, 0], [10, 4]]
    assert BOTH.without("anna").delta().tolist() == [[0, 0], [2, 2]]
    assert BOTH.only({"anna"}).delta().tolist() == [[3, 0], [6, 0]]
    assert (BOTH.strength_of("rex"), BOTH.strength_of("tom")) == (0.5, None)


def test_strengths_reach_every_column_of_their_run():
    wide = Stack.stack([Stack.of("anna", random_change(0, 3), 2.0), Stack.of("rex", random_change(1, 2), -1.0)])
    assert wide.column_strengths.tolist() == [2.0, 2.0, 2.0, -1.0, -1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_change_is_the_float64_sum(dtype):
    parts = random_parts(dtype)
    found = stacked(parts)
    assert found.up.dtype == found.down.dtype == torch.float32
    assert close(found.delta().double(), exact(parts))


def test_a_turned_strength_is_a_stack_made_with_it_bit_for_bit():
    parts = random_parts()
    for owner, strength in itertools.product(parts, (0.0, 1.0, 0.37, -2.5)):
        anew = stacked(parts | {owner: (parts[owner][0], strength)})
        turned = stacked(parts).with_strength(owner, strength)
        assert torch.equal(turned.low_rank.up, anew.low_rank.up) and torch.equal(turned.delta(), anew.delta())


def test_turning_leaves_the_stack_itself_alone():
    before = BOTH.strengths.clone()
    BOTH.with_strength("rex", 7.0)
    assert torch.equal(BOTH.strengths, before)


def test_without_a_concept_is_the_stack_of_the_rest_bit_for_bit():
    parts = random_parts()
    for owner in parts:
        rest = {name: part for name, part in parts.items() if name != owner}
        found = stacked(parts).without(owner)
        assert torch.equal(found.delta(), stacked(rest).delta()) and found.owners == stacked(rest).owners
        assert torch.equal(stacked(parts).only(rest).delta(), found.delta())
        assert close(stacked(parts).delta().double() - found.delta().double(), exact({owner: parts[owner]}))


def test_the_order_of_the_parts_does_not_matter_but_for_rounding():
    parts = random_parts()
    for order in itertools.islice(itertools.permutations(parts), 0, None, 97):
        assert close(stacked({name: parts[name] for name in order}).delta().double(), exact(parts))


def test_a_concept_that_owns_nothing_here_changes_nothing():
    assert BOTH.with_strength("tom", 3.0) is BOTH
    assert torch.equal(BOTH.without("tom").delta(), BOTH.delta())
    nothing = BOTH.only({"tom"})
    assert nothing.rank == 0 and torch.equal(nothing.delta(), torch.zeros(2, 2))


def test_a_concept_in_two_runs_is_turned_in_both():
    twice = Stack.stack([Stack.of("anna", ANNA), Stack.of("rex", REX), Stack.of("anna", ANNA, 2.0)])
    assert twice.with_strength("anna", 0.0).delta().tolist() == REX.delta().tolist()


def test_mixed_columns_are_refused():
    mixed = Stack.stack([Stack.of("anna", ANNA), Stack.of(None, random_change_of_two())])
    assert not mixed.is_owned
    for action in (
        lambda: mixed.with_strength("anna", 0.5),
        lambda: mixed.only({"anna"}),
        lambda: mixed.without("anna"),
    ):
        with pytest.raises(ConfigurationError, match="3 of 4 columns of a change are mixed from several concepts"):
            action()


def random_change_of_two() -> LowRank:
    return LowRank(torch.ones(2, 3), torch.ones(3, 2))


def test_nothing_is_copied_before_somebody_asks():
    assert [run.change for run in BOTH.runs] == [ANNA, REX]
    assert BOTH.is_as(Stack.stack([Stack.of("anna", ANNA), Stack.of("rex", REX, 0.5)]))
    assert not BOTH.is_as(BOTH.with_strength("rex", 0.25)) and not BOTH.is_as(BOTH.without("rex"))


def test_nothing_and_other_shapes_are_not_stacked():
    with pytest.raises(ConfigurationError, match="a stack of 0 low-rank changes"):
        Stack.stack([])
    with pytest.raises(ConfigurationError, match="all must have one shape"):
        Stack.stack([Stack.of("anna", ANNA), Stack.of("rex", random_change(0, 1))])
