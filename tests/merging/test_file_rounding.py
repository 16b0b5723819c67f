"""Half precision of merged files: what it rounds, and powers of two that go from one factor to the other."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging.file_rounding import fitted, nearest, rounded, rounding_of


def drawn(*sizes: tuple[float, float], seed: int = 0) -> LoraFile:
    """Layers of one ``down``, each with an ``up``; sizes of both."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(4, 12, generator=generator)
    layers = {
        str(at): LowRank(torch.randn(10, 4, generator=generator) * up, down * of_down)
        for at, (up, of_down) in enumerate(sizes)
    }
    return LoraFile("a", "kohya", None, None, layers)


def product(change: LowRank) -> torch.Tensor:
    return change.up.double() @ change.down.double()


def test_numbers_within_the_range_of_a_type_are_left_alone():
    lora = drawn((1.0, 1.0))
    same, rounding = fitted(lora, torch.float16)
    exact = product(lora.layers["0"])
    half = product(rounded(lora, torch.float16).layers["0"])
    assert same is lora and rounding.is_fit
    assert rounding.error == pytest.approx(float((half - exact).norm() / exact.norm()), rel=1e-9)


@pytest.mark.parametrize("sizes", [((1e-7, 1.0), (1e-4, 1.0)), ((1.0, 1e-6),), ((1e6, 1e-3),)])
def test_small_and_large_numbers_are_balanced_exactly_and_equal_downs_stay_equal(sizes):
    lora = drawn(*sizes)
    assert not rounding_of(lora, torch.float16).is_fit
    balanced, rounding = fitted(lora, torch.float16)
    for name, change in lora.layers.items():
        assert torch.equal(product(balanced.layers[name]), product(change))
        assert torch.equal(balanced.layers[name].down, balanced.layers["0"].down)
    assert rounding.error < 5e-4 and (sizes[0][0] < 1e-6 or rounding.is_fit)
    assert all(
        bool(torch.isfinite(product(change)).all()) for change in rounded(balanced, torch.float16).layers.values()
    )


def test_a_large_norm_is_estimated():
    generator = torch.Generator().manual_seed(1)
    layers = {
        str(at): LowRank(torch.randn(600, 300, generator=generator), torch.randn(300, 600, generator=generator))
        for at in range(3)
    }
    lora = LoraFile("a", "kohya", None, None, layers)
    errors, sizes = [], []
    for name, change in rounded(lora, torch.float16).layers.items():
        exact = product(layers[name])
        errors.append((product(change) - exact).square().sum())
        sizes.append(exact.square().sum())
    exact_error = float((sum(errors) / sum(sizes)) ** 0.5)
    assert rounding_of(lora, torch.float16).error == pytest.approx(exact_error, rel=0.05)


def test_digits_without_a_smallest_number():
    numbers = torch.tensor([1.0, 1 / 3, 1e-12, 1e9], dtype=torch.float64)
    close = nearest(numbers, torch.float16)
    assert bool(((close - numbers).abs() <= numbers * 2.0**-11).all()) and close[0] == 1
    assert torch.equal(nearest(numbers[:2], torch.float16), numbers[:2].half().double())
    assert torch.equal(nearest(numbers, torch.bfloat16), numbers.bfloat16().double())
