"""The bootstrap: exact where nothing varies, wide where much does."""

import pytest
import torch

from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import bootstrap, crossed_interval, mean_interval, retention_interval


def test_no_spread_gives_a_point():
    interval = mean_interval(torch.full((4, 3), 0.7))
    assert [interval.value, interval.low, interval.high] == pytest.approx([0.7] * 3)


def test_the_interval_surrounds_the_mean_and_repeats():
    values = torch.linspace(0, 1, 36).reshape(12, 3)
    interval = mean_interval(values)
    assert interval.value == pytest.approx(0.5)
    assert 0.2 < interval.low < 0.5 < interval.high < 0.8
    assert interval == mean_interval(values)
    assert interval != mean_interval(values, seed=1)


def test_width_follows_the_standard_error_of_the_concepts():
    # one seed: the bounds of the mean of 100 draws with deviation s are +-1.96 s/10
    values = torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    interval = mean_interval(values)
    expected = 1.96 * float(values.std()) / 10
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.1)


def test_a_lower_level_is_narrower():
    values = torch.linspace(0, 1, 36).reshape(12, 3)
    wide, narrow = mean_interval(values), mean_interval(values, level=0.5)
    assert narrow.high - narrow.low < wide.high - wide.low


def test_retention_draws_single_and_merged_together():
    # merged is exactly 0.9 of single everywhere: however the concepts are drawn the ratio stays
    single = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    interval = retention_interval(single, single * 0.9)
    assert [interval.value, interval.low, interval.high] == pytest.approx([0.9] * 3)


def test_retention_is_the_ratio_of_means():
    assert retention_interval(torch.tensor([[0.2], [0.8]]), torch.tensor([[0.0], [0.5]])).value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval(torch.zeros(3)), r"shape \(3,\)"),
        (lambda: mean_interval(torch.zeros(0, 3)), r"shape \(0, 3\)"),
        (lambda: mean_interval(torch.zeros(2, 2), level=1.0), "level is 1.0"),
        (lambda: bootstrap(torch.zeros(2, 2), lambda b: b.mean(dim=(1, 2)), draws=0), "draws 0"),
        (lambda: retention_interval(torch.ones(2, 2), torch.ones(2, 3)), r"single is \(2, 2\), merged \(2, 3\)"),
        (lambda: retention_interval(torch.zeros(2, 2), torch.ones(2, 2)), "mean of single is 0.0"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(call, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        call()
    assert "allowed" in str(caught.value)


def test_combinations_that_share_concepts_tell_less_than_as_many_others():
    """Twelve ordered pairs of four people: what hangs on one person is in six of them."""
    names = ("a", "b", "c", "d")
    pairs = [(first, second) for first in names for second in names if first != second]
    values = torch.tensor([[1.0 if "a" in pair else 0.0] for pair in pairs])
    crossed = crossed_interval(values, pairs, ("person", "person"))
    plain = mean_interval(values)
    assert crossed.value == plain.value == 0.5
    assert crossed.high - crossed.low > 1.5 * (plain.high - plain.low)
    assert crossed == crossed_interval(values, pairs, ("person", "person"))
    apart = [(f"p{i}", f"s{i}") for i in range(12)]
    equal = crossed_interval(torch.full((12, 2), 0.3), apart, ("person", "style"))
    assert (equal.value, equal.low, equal.high) == pytest.approx((0.3, 0.3, 0.3))


def test_crossed_values_need_a_row_for_every_combination():
    with pytest.raises(ConfigurationError, match=r"shape \(2, 1\) for 1 combinations"):
        crossed_interval(torch.zeros(2, 1), [("a", "b")], ("person", "style"))
    for options in ({"level": 1.0}, {"draws": 0}):
        with pytest.raises(ConfigurationError, match="allowed: 0 < level < 1, draws >= 1"):
            crossed_interval(torch.zeros(1, 1), [("a", "b")], ("person", "style"), **options)


def test_a_crossed_ratio_is_one_of_means_drawn_together():
    pairs = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    per = torch.tensor([[0.2], [0.4], [0.6], [0.8]])
    ratio = crossed_interval(per / 2, pairs, ("person", "style"), per=per)
    assert ratio.value == ratio.low == ratio.high == pytest.approx(0.5)
    noisy = crossed_interval(torch.tensor([[0.2], [0.2], [0.2], [0.2]]), pairs, ("person", "style"), per=per)
    assert noisy.value == pytest.approx(0.4) and noisy.low < 0.4 < noisy.high
    one = torch.tensor([[1.0], [0.0], [0.0], [0.0]])  # draws without its concepts have no ratio
    assert crossed_interval(one, pairs, ("person", "style"), per=one).high == pytest.approx(1.0)
    with pytest.raises(ConfigurationError, match="per has the shape .* and the mean 0.0; allowed"):
        crossed_interval(per, pairs, ("person", "style"), per=torch.zeros(4, 1))
    with pytest.raises(ConfigurationError, match=r"per has the shape \(4, 2\)"):
        crossed_interval(per, pairs, ("person", "style"), per=torch.ones(4, 2))
