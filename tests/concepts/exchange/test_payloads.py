"""From the tensors of one module to its exact change, with answers written out."""

import pytest
import torch
from torch import Tensor, tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.payloads import PAYLOADS, Difference, form_of, load_payload
from orthoplex.errors import ConfigurationError

UP, DOWN = tensor([[1.0], [2.0]]), tensor([[3.0, 0.0, 1.0]])


def change(name: str, parts: dict[str, Tensor], **options) -> LowRank | Difference:
    return load_payload(name).change(parts, **options)


def delta(name: str, parts: dict[str, Tensor], **options) -> list:
    result = change(name, parts, **options)
    return (result.delta() if isinstance(result, LowRank) else result.values).tolist()


@pytest.mark.parametrize(
    ("numbers", "options", "factor"),
    [
        ({}, {}, 1),
        ({"alpha": tensor(2.0)}, {}, 2),
        ({"alpha": tensor([[2]])}, {}, 2),
        ({"alpha": tensor(0.5, dtype=torch.bfloat16)}, {}, 0.5),
        ({"scale": tensor(0.25)}, {}, 0.25),
        ({}, {"factor": 3.0}, 3),
        ({"alpha": tensor(3.0)}, {"factor": 3.0}, 3),
    ],
)
def test_alpha_over_rank_goes_into_up(numbers, options, factor):
    result = change("low-rank", {"up": UP, "down": DOWN, **numbers}, **options)
    assert result.up.tolist() == [[factor], [2 * factor]] and torch.equal(result.down, DOWN)


def test_alpha_is_divided_by_the_rank_of_down():
    up, down = torch.ones(3, 4), torch.ones(4, 2)
    assert delta("low-rank", {"up": up, "down": down, "alpha": tensor(1)}) == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("up", "down", "shape", "answer"),
    [
        ((2, 1), (1, 3, 1, 1), (2, 3), (2, 3)),
        ((2, 1, 1, 1), (1, 3), (2, 3, 1, 1), (2, 3)),
        ((2, 1, 1, 1), (1, 3, 3, 3), (2, 3, 3, 3), (2, 27)),
        ((2, 1, 1), (1, 3, 5), (2, 3, 5), (2, 15)),
        ((2, 1, 1, 1, 1), (1, 3, 2, 2, 2), None, (2, 24)),
        ((2, 1), (1, 27), (2, 3, 3, 3), (2, 27)),
    ],
)
def test_convolutions_are_flattened(up, down, shape, answer):
    result = change("low-rank", {"up": torch.ones(up), "down": torch.ones(down)}, shape=shape)
    assert result.shape == answer


def test_locon_core_goes_into_down():
    parts = {
        "up": tensor([[1.0, 0.0], [0.0, 2.0]]),
        "mid": torch.arange(8.0).reshape(2, 2, 1, 2),
        "down": tensor([[1.0], [10.0]]),
        "alpha": tensor(4.0),
    }
    # mid[m, n, :] is [[0 1], [2 3]] and [[4 5], [6 7]]: the sum over n with 1 and 10, row m with up, twice.
    assert delta("low-rank", parts, shape=(2, 1, 1, 2)) == [[40, 62], [256, 300]]
    assert form_of("low-rank", {"up": (2, 2), "mid": (2, 2, 1, 2), "down": (2, 1)}).shape == (2, 1, 1, 2)


def test_bias_of_up_is_scaled_as_the_product():
    parts = {"up": UP, "down": DOWN, "up_bias": tensor([1.0, -1.0]), "alpha": tensor(0.5)}
    assert delta("low-rank bias", parts) == [0.5, -0.5]


def test_embedding_is_transposed():
    parts = {"embedding_down": DOWN, "embedding_up": UP}
    assert delta("low-rank embedding", parts, shape=(3, 2)) == [[3, 6], [0, 0], [1, 2]]


def hadamard(out_features: int, in_features: int) -> dict[str, Tensor]:
    return {
        "w1_a": torch.arange(1.0, out_features + 1)[:, None],
        "w1_b": torch.ones(1, in_features),
        "w2_a": torch.ones(out_features, 1),
        "w2_b": torch.arange(float(in_features))[None],
    }


def test_hadamard_product_written_out():
    result = change("hadamard", {**hadamard(3, 4), "alpha": tensor(2.0)}, shape=(3, 4))
    assert isinstance(result, LowRank) and result.rank == 1
    assert result.delta().tolist() == [[2 * row * column for column in range(4)] for row in (1, 2, 3)]


def test_hadamard_product_of_rank_two_is_of_rank_four():
    torch.manual_seed(0)
    parts = {
        "w1_a": torch.randn(9, 2),
        "w1_b": torch.randn(2, 10),
        "w2_a": torch.randn(9, 2),
        "w2_b": torch.randn(2, 10),
    }
    result = change("hadamard", parts)
    expected = (parts["w1_a"].double() @ parts["w1_b"].double()) * (parts["w2_a"].double() @ parts["w2_b"].double())
    assert result.rank == 4
    torch.testing.assert_close(result.up.double() @ result.down.double(), expected, rtol=1e-6, atol=1e-6)
    small = change("hadamard", {part: values[:8] if part.endswith("a") else values for part, values in parts.items()})
    assert isinstance(small, Difference) and torch.equal(small.values, expected[:8].float())


def test_hadamard_core_written_out():
    parts = {
        "w1_a": tensor([[1.0, 2.0, 3.0]]),  # (rank, out)
        "w1_b": tensor([[1.0, 10.0]]),  # (rank, in)
        "t1": tensor([[[[1.0, 2.0]]]]),
        "w2_a": torch.ones(1, 3),
        "w2_b": torch.ones(1, 2),
        "t2": tensor([[[[1.0, -1.0]]]]),
    }
    assert delta("hadamard", parts, shape=(3, 2, 1, 2)) == [[1, -2, 10, -20], [2, -4, 20, -40], [3, -6, 30, -60]]


W1, W2 = tensor([[1.0, 2.0]]), tensor([[1.0], [10.0]])


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ({"lokr_w1": W1, "lokr_w2": W2}, [[1, 2], [10, 20]]),
        ({"lokr_w1": W1, "lokr_w2": W2, "alpha": tensor(7.0)}, [[1, 2], [10, 20]]),  # no rank, so alpha says nothing
        ({"lokr_w1": W1, "lokr_w2_a": W2, "lokr_w2_b": tensor([[2.0]]), "alpha": tensor(3.0)}, [[6, 12], [60, 120]]),
        ({"lokr_w1_a": tensor([[1.0]]), "lokr_w1_b": W1, "lokr_w2": W2, "alpha": tensor(0.5)}, [[0.5, 1], [5, 10]]),
        ({"lokr_w1": W2, "lokr_w2": W1.reshape(1, 1, 1, 2)}, [[[[1, 2]]], [[[10, 20]]]]),
        (
            {
                "lokr_w1": W2,
                "lokr_w2_a": tensor([[3.0]]),
                "lokr_w2_b": tensor([[1.0]]),
                "lokr_t2": W1.reshape(1, 1, 1, 2),
            },
            [[[[3, 6]]], [[[30, 60]]]],
        ),
    ],
)
def test_kronecker_product_written_out(parts, answer):
    assert delta("kronecker", parts) == answer


@pytest.mark.parametrize(
    ("shapes", "rank", "exact_rank"),
    [
        ({"lokr_w1": (2, 2), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 40)}, 4, 8),
        ({"lokr_w1_a": (8, 1), "lokr_w1_b": (1, 8), "lokr_w2_a": (40, 1), "lokr_w2_b": (1, 360)}, 1, 1),
        ({"lokr_w1": (2, 2), "lokr_w2": (40, 40)}, None, None),
        ({"lokr_w1": (2, 9), "lokr_w2": (90, 4)}, None, 8),
        ({"lokr_w1": (1, 4), "lokr_w2": (90, 4, 3, 3)}, None, 36),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 40), "lokr_w2_b": (4, 40), "lokr_t2": (4, 4, 3, 3)}, 4, 8),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (40, 30), "lokr_w2_b": (30, 40)}, 30, None),
    ],
)
def test_kronecker_rank_is_the_product_of_both(shapes, rank, exact_rank):
    torch.manual_seed(0)
    form = form_of("kronecker", shapes)
    assert (form.rank, form.exact_rank) == (rank, exact_rank)
    parts = {part: torch.randn(shape) for part, shape in shapes.items()}
    result = change("kronecker", parts)
    assert (result.rank if isinstance(result, LowRank) else None) == exact_rank
    w1, w2 = parts.get("lokr_w1"), parts.get("lokr_w2")
    w1 = parts["lokr_w1_a"] @ parts["lokr_w1_b"] if w1 is None else w1
    if w2 is None and "lokr_t2" in parts:
        w2 = torch.einsum("ijkl,ip,jr->prkl", parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"]).contiguous()
    elif w2 is None:
        w2 = parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    expected = torch.kron(w1.reshape(*w1.shape, *[1] * (w2.ndim - 2)), w2)
    assert form.shape == expected.shape
    own = result.delta() if isinstance(result, LowRank) else result.values.flatten(1)
    torch.testing.assert_close(own, expected.flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["difference", "norm difference", "bias difference"])
def test_differences_are_themselves(name):
    (part,) = PAYLOADS[name].parts
    values = tensor([1.0, 2.0], dtype=torch.float16)
    result = change(name, {part: values}, shape=(2,))
    assert torch.equal(result.values, values) and result.values.dtype == torch.float16
    assert change(name, {part: values}, factor=0.5).values.tolist() == [0.5, 1]


def test_difference_of_a_point_convolution_may_be_a_matrix():
    assert change("difference", {"diff": torch.ones(4, 3)}, shape=(4, 3, 1, 1)).values.shape == (4, 3, 1, 1)


@pytest.mark.parametrize(
    ("dtype", "alpha", "up", "kind"),
    [
        (torch.float16, 0.5, [[0.5]], torch.float16),
        (torch.bfloat16, 4.0, [[4.0]], torch.bfloat16),
        (torch.float16, 0.75, [[0.75]], torch.float32),
        (torch.float16, 2.0**-25, [[2.0**-25]], torch.float32),  # below the smallest float16
        (torch.float16, 2.0**17, [[2.0**17]], torch.float32),  # above the largest
        (torch.float8_e4m3fn, 0.5, [[0.5]], torch.float16),
        (torch.float8_e5m2, 1.0, [[1.0]], torch.float16),
        (torch.float64, 1.0, [[1.0]], torch.float32),
        (torch.float32, 1 / 3, [[float(tensor(1 / 3))]], torch.float32),
    ],
)
def test_types_stay_where_nothing_is_rounded(dtype, alpha, up, kind):
    parts = {"up": torch.ones(1, 1).to(dtype), "down": torch.ones(1, 1).to(dtype), "alpha": tensor(alpha)}
    result = change("low-rank", parts)
    assert result.up.dtype == kind and result.up.tolist() == up


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_of_eight_bits_is_read_exactly(dtype):
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype)
    finite = numbers[torch.isfinite(numbers.float())].reshape(-1, 1)
    result = change("low-rank", {"up": finite, "down": torch.ones(1, 1)})
    assert torch.equal(result.up.double(), finite.double())


def test_float64_is_rounded_once():
    exact = tensor([[1 + 2**-24 + 2**-50]], dtype=torch.float64)
    assert delta("low-rank", {"up": exact, "down": torch.ones(1, 1)}) == [[1 + 2**-23]]


@pytest.mark.parametrize(
    ("name", "parts", "options", "message"),
    [
        (
            "low-rank",
            {"up": (2, 1), "down": (2, 3)},
            {},
            r"up has shape \(2, 1\) and down has shape \(2, 3\): ranks 1 and 2",
        ),
        ("low-rank", {"up": (2,), "down": (1, 3)}, {}, r"up has shape \(2,\); allowed are at least two sizes"),
        ("low-rank", {"up": (2, 0), "down": (0, 3)}, {}, r"up has shape \(2, 0\); allowed are .* none of them 0"),
        ("low-rank", {"up": (2, 1, 3, 3), "down": (1, 3)}, {}, r"up has shape \(2, 1, 3, 3\); allowed is a matrix, or"),
        (
            "low-rank",
            {"up": (2, 1), "down": (1, 3)},
            {"shape": (3, 2)},
            r"a parameter of shape \(2, 3\); the base's has shape \(3, 2\)",
        ),
        ("low-rank", {"up": (2, 1), "down": (1, 3)}, {"factor": 0.0}, "the metadata's factor is 0; allowed are finite"),
        ("low-rank", {"up": (2, 1), "mid": (2, 1, 3, 3), "down": (1, 3)}, {}, "ranks 1 and 2"),
        ("low-rank", {"up": (2, 1), "mid": (1, 2, 3, 3), "down": (1, 3)}, {}, "ranks 2 and 1"),
        ("low-rank bias", {"up": (2, 1), "down": (1, 3), "up_bias": (3,)}, {}, r"up_bias has shape \(3,\) beside up"),
        ("low-rank bias", {"up": (2, 1), "down": (1, 3), "up_bias": (2, 1)}, {}, "allowed is a vector"),
        ("low-rank embedding", {"embedding_up": (2, 1), "embedding_down": (2, 3)}, {}, "ranks 1 and 2"),
        (
            "hadamard",
            {"w1_a": (2, 1), "w1_b": (1, 3), "w2_a": (2, 2), "w2_b": (2, 3)},
            {},
            "two sides of one shape and one rank",
        ),
        (
            "hadamard",
            {"w1_a": (2, 1), "w1_b": (1, 3), "w2_a": (2, 1), "w2_b": (1, 3), "t1": (1, 1, 3, 3)},
            {},
            "one of t1 and t2",
        ),
        (
            "kronecker",
            {"lokr_w1_a": (4, 1), "lokr_w1_b": (1, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)},
            {},
            r"ranks \[1, 2\]",
        ),
        ("difference", {"diff": (2, 3)}, {"shape": (3, 2)}, "the base's has shape"),
        ("bias difference", {"diff_b": ()}, {}, r"diff_b has shape \(\); allowed is at least one size"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, parts, options, message):
    with pytest.raises(ConfigurationError, match=message):
        change(name, {part: torch.ones(shape) for part, shape in parts.items()}, **options)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"alpha": tensor(0.0)}, "alpha is 0; allowed are finite numbers above 0"),
        ({"alpha": tensor(-1.0)}, "alpha is -1"),
        ({"alpha": tensor(float("nan"))}, "alpha is nan"),
        ({"alpha": tensor(float("inf"))}, "alpha is inf"),
        ({"alpha": torch.ones(2)}, r"alpha has shape \(2,\); allowed is one number"),
        ({"scale": tensor(0)}, "scale is 0"),
        ({"alpha": tensor(2.0), "scale": tensor(1.0)}, "scales it by several factors: scale 1, alpha / rank 2"),
        ({"up": tensor([[1.0], [float("nan")]])}, "up has 1 of 2 values that are not finite"),
        ({"down": tensor([[1.0, float("inf"), -float("inf")]])}, "down has 2 of 3 values that are not finite"),
        ({"up": tensor([[1], [2]])}, "up has type int64; allowed are float8_e4m3fn, float8_e5m2, float16, bfloat16,"),
        ({"up": tensor([[1e300], [1.0]], dtype=torch.float64)}, r"a value of 1e\+300 is too large for float32"),
        ({"up": tensor([[3e38], [1.0]]), "alpha": tensor(16.0)}, r"is too large for float32"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(parts, message):
    with pytest.raises(ConfigurationError, match=message):
        change("low-rank", {"up": UP, "down": DOWN, **parts})


def test_alpha_beside_whole_sides_must_still_be_a_number():
    with pytest.raises(ConfigurationError, match="alpha is nan"):
        change("kronecker", {"lokr_w1": W1, "lokr_w2": W2, "alpha": tensor(float("nan"))})
