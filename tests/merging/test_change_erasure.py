"""Erasure in closed form, on matrices small enough to write the answer down."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging import InputGrams, closed_form_erasure, erasure_in_rows, merge
from tests.pico import make_concept


def change(generator, out=5, rank=2, width=6):
    return LowRank(torch.randn(out, rank, generator=generator), torch.randn(rank, width, generator=generator))


def gram(generator, width=6, inputs=40):
    x = torch.randn(inputs, width, generator=generator, dtype=torch.float64)
    return x.T @ x / inputs


def test_two_inputs_at_right_angles():
    """On the own input e₀ nothing is lost; on the foreign input e₁ as much is left as its weight allows."""
    both = LowRank(torch.tensor([[1.0]]), torch.tensor([[3.0, 5.0]]))
    own, foreign = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(
        closed_form_erasure(both, own, foreign, weight=4.0).delta(), torch.tensor([[3.0, 0.0]]), atol=1e-2, rtol=0
    )
    mixed = torch.eye(2)  # e₁ is as often an own input: 5 · 1 / (1 + 4)
    torch.testing.assert_close(
        closed_form_erasure(both, mixed, foreign, weight=4.0).delta(), torch.tensor([[3.0, 1.0]]), atol=1e-2, rtol=0
    )


def test_no_other_change_is_better():
    """The gradient of E‖ΔW'x − ΔWx‖² + w E₀‖ΔW'x‖² is zero there."""
    generator = torch.Generator().manual_seed(0)
    before, own, foreign = change(generator), gram(generator), gram(generator)
    after = closed_form_erasure(before, own, foreign, weight=3.0, ridge=0.0).delta().double()
    gradient = (after - before.delta().double()) @ own + 3.0 * after @ foreign
    assert gradient.abs().max() < 1e-4 * before.delta().abs().max()


def test_weight_zero_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    before = change(generator)
    after = closed_form_erasure(before, gram(generator), gram(generator), weight=0.0, ridge=0.0)
    torch.testing.assert_close(after.delta(), before.delta(), atol=1e-4, rtol=1e-4)
    assert after.rank == before.rank


def test_it_is_least_squares_for_one_concept(pico):
    concept, generator = make_concept(pico, "anna"), torch.Generator().manual_seed(2)
    grams = {layer: gram(generator, part.shape[1]).float() for layer, part in concept.layers.items()}
    foreign = {layer: gram(generator, part.shape[1]).float() for layer, part in concept.layers.items()}
    merged = merge(
        [(concept, 1.0)],
        algorithm="least-squares",
        options={"foreign": 7.0},
        inputs=InputGrams({concept.content_hash: grams}, foreign),
    )
    for layer, part in concept.layers.items():
        found = closed_form_erasure(part, grams[layer], foreign[layer], weight=7.0)
        torch.testing.assert_close(found.delta(), merged.layers[layer].delta(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("width", "weight", "message"), [(5, 1.0, r"\(5, 5\).*\(6, 6\)"), (6, -1.0, "weight of erasure is -1")]
)
def test_what_does_not_fit_is_refused(width, weight, message):
    generator = torch.Generator().manual_seed(3)
    with pytest.raises(ConfigurationError, match=message):
        closed_form_erasure(change(generator), gram(generator, width), gram(generator, width), weight=weight)


def test_certain_rows_alone_have_the_best_change_among_those_that_read_them():
    generator = torch.Generator().manual_seed(3)
    before, own, foreign = change(generator), gram(generator), gram(generator)
    rows = torch.linalg.qr(torch.randn(6, 3, generator=generator))[0].T
    after = erasure_in_rows(before, own, foreign, rows=rows, weight=3.0, ridge=0.0)
    assert torch.equal(after.down, rows) and after.rank == 3
    residue = (after.delta().double() - before.delta().double()) @ own + 3.0 * after.delta().double() @ foreign
    assert (residue @ rows.T.double()).abs().max() < 1e-4 * before.delta().abs().max()
    everything = erasure_in_rows(before, own, foreign, rows=torch.eye(6), weight=3.0)
    torch.testing.assert_close(everything.delta(), closed_form_erasure(before, own, foreign, weight=3.0).delta())
    with pytest.raises(ConfigurationError, match="the weight of erasure is -1"):
        erasure_in_rows(before, own, foreign, rows=rows, weight=-1)
