"""Systems that layers share: the same change as one dense solve a layer, from rows, matrices, and both."""

from __future__ import annotations

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.merging import InputGrams, Part, RowGram, WeightChanges, create_algorithm
from orthoplex.merging.algorithms.data_aware import concept_grams
from orthoplex.merging.layer_merge import merge_layers
from orthoplex.merging.systems import DampedSystem, SharedSystems, damped

WIDTH = 40
NAMES = ("anna", "lake", "rex")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def change(seed: int, rank: int = 3) -> LowRank:
    return LowRank(
        torch.randn(16, rank, generator=generator(seed)), torch.randn(rank, WIDTH, generator=generator(seed + 50))
    )


def rows(seed: int, count: int = 12) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=generator(seed + 100)).half()


def given(form: str) -> dict[str, torch.Tensor | RowGram]:
    """Return the inputs of all concepts: as rows, as matrices, or the first as a matrix and the others as rows."""
    grams = {name: RowGram(rows(i)) for i, name in enumerate(NAMES)}
    as_matrix = {"rows": (), "matrices": NAMES, "both": NAMES[:1]}[form]
    return {name: gram.matrix.float() if name in as_matrix else gram for name, gram in grams.items()}


def dense_solution(grams, parts, foreign, weight, ridge) -> torch.Tensor:
    """Return the change by one dense float64 solve, as it is written in the papers."""
    matrices = {name: gram.matrix if isinstance(gram, RowGram) else gram.double() for name, gram in grams.items()}
    total = sum(matrices.values()) + (0 if foreign is None else weight * foreign.double())
    wanted = sum(
        part.strength * part.change.up.double() @ part.change.down.double() @ matrices[part.concept] for part in parts
    )
    return wanted @ torch.linalg.inv(damped(total, ridge))


@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
@pytest.mark.parametrize("weight", [0.0, 3.0])
@pytest.mark.parametrize("form", ["rows", "matrices", "both"])
def test_least_squares_is_the_dense_solution(form, weight, ridge):
    grams, foreign = given(form), torch.eye(WIDTH) + 0.1
    parts = tuple(Part(name, change(i), 0.5 + i) for i, name in enumerate(NAMES[:2]))  # rex leaves this layer alone
    changes = WeightChanges("layer", parts, 3, grams, foreign)
    merged = create_algorithm("least-squares", {"ridge": ridge, "foreign": weight}).merge(changes)
    expected = dense_solution(grams, parts, foreign if weight else None, weight, ridge)
    assert (merged.delta().double() - expected).norm() < 1e-5 * expected.norm()
    assert merged.owners == (("anna", 3), ("lake", 3)) and merged.strengths.tolist() == [0.5, 1.5]


@pytest.mark.parametrize("form", ["rows", "matrices", "both"])
def test_the_router_from_rows_is_the_router_from_matrices(form):
    parts = tuple(Part(name, change(i), 0.5 + i) for i, name in enumerate(NAMES))
    router = create_algorithm("ssr")
    found = router.merge(WeightChanges("layer", parts, 3, given(form))).delta()
    exact = {name: gram.matrix for name, gram in given("rows").items()}
    expected = router.merge(WeightChanges("layer", parts, 3, exact)).delta()
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_layers_with_the_same_inputs_have_one_system(monkeypatch):
    made = []
    original = DampedSystem.__init__
    monkeypatch.setattr(DampedSystem, "__init__", lambda self, *values: made.append(1) or original(self, *values))

    class Member:
        def __init__(self, name: str, seed: int) -> None:
            self.name = self.content_hash = name
            down = change(seed).down
            self.layers = {
                f"layer {i}": LowRank(change(seed + i).up, down if i < 3 else change(i).down) for i in range(5)
            }

    members = [(Member(name, 10 * i), 1.0) for i, name in enumerate(NAMES)]
    grams = given("both")
    alone = torch.eye(WIDTH)
    inputs = InputGrams(
        {name: {f"layer {i}": gram if i < 4 else alone for i in range(5)} for name, gram in grams.items()}
    )
    merged = merge_layers(create_algorithm("least-squares"), members, inputs)
    assert len(made) == 2  # four layers share one
    first, second, fourth = (merged[f"layer {i}"].runs for i in (0, 1, 3))
    assert all(one.change.down is other.change.down for one, other in zip(first, second, strict=True))
    assert first[0].change.down is not fourth[0].change.down


def test_totals_are_remembered_by_identity_alone():
    systems, grams = SharedSystems(), given("rows")
    first = systems.total(grams, None, 0.0)
    assert systems.total(grams, None, 0.0) is first
    others = {name: RowGram(gram.rows) for name, gram in grams.items()}
    assert systems.total(others, None, 0.0) is not first and torch.equal(systems.total(others, None, 0.0), first)


def test_a_matrix_that_rounding_made_indefinite_is_solved_nevertheless():
    matrix = torch.diag(torch.tensor([1.0, 1.0, -0.5], dtype=torch.float64))
    right = torch.tensor([[2.0, 4.0, 3.0]], dtype=torch.float64)
    solved = DampedSystem(matrix, 1e-6).solve(right)
    torch.testing.assert_close(solved @ damped(matrix, 1e-6), right)


def test_rows_are_a_matrix_where_one_is_asked_for():
    gram = RowGram(rows(1))
    changes = WeightChanges("layer", (Part("anna", change(0), 1.0),), 1, {"anna": gram})
    assert torch.equal(concept_grams(changes)["anna"], gram.matrix) and gram.shape == (WIDTH, WIDTH)
    torch.testing.assert_close(gram.matrix, rows(1).double().T @ rows(1).double())


def test_the_hash_tells_a_matrix_from_a_factor_of_one():
    square = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    one, other = (InputGrams({"anna": {"layer": gram}}).content_hash for gram in (square, RowGram(square)))
    assert one != other
