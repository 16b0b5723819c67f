"""LoRACLR: without its push it is least squares, with it different concepts' outputs come apart."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging import Part, WeightChanges, create_algorithm
from orthoplex.merging.algorithms.contrastive import minimised, symmetric_root

WIDTH, OUT = 12, 10


def change(seed: int, rank: int = 2) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(OUT, rank, generator=generator), torch.randn(rank, WIDTH, generator=generator))


def gram(seed: int, shared: float = 0.0) -> torch.Tensor:
    """Of inputs that are in part the same for all concepts."""
    x, common = (torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(number)) for number in (seed, 99))
    x = (1 - shared) * x + shared * common
    return x.T @ x / 40


def given(*parts: LowRank, grams, strengths=None, num_concepts: int | None = None) -> WeightChanges:
    strengths = strengths or [1.0] * len(parts)
    named = tuple(Part(f"concept {i}", part, strengths[i]) for i, part in enumerate(parts))
    names = {f"concept {i}": each for i, each in enumerate(grams)}
    return WeightChanges("unet.layer", named, num_concepts or len(parts), names)


def outputs(delta: torch.Tensor, grams) -> list[torch.Tensor]:
    return [delta.double() @ symmetric_root(each.double()) for each in grams]


def apart(delta: torch.Tensor, grams) -> float:
    """Distance of the outputs that the same change gives the first two concepts."""
    first, second = outputs(delta, grams)[:2]
    return float((first - second).norm())


def loss(delta: torch.Tensor, changes: WeightChanges, margin: float, weight: float) -> float:
    """The loss as the docstring writes it down."""
    names = sorted(changes.grams)
    grams = [changes.grams[name].double() for name in names]
    own = {part.concept: part.strength * part.change.delta().double() for part in changes.parts}
    targets = [
        own.get(name, torch.zeros_like(delta)).double() @ symmetric_root(g)
        for name, g in zip(names, grams, strict=True)
    ]
    size = sum(float(target.square().sum()) for target in targets) / len(targets)
    found = [delta.double() @ symmetric_root(g) for g in grams]
    total = 0.0
    for i, output in enumerate(found):
        others = [float((output - target).norm()) / size**0.5 for j, target in enumerate(targets) if j != i]
        total += float((output - targets[i]).square().sum()) / size + max(0.0, margin - min(others)) ** 2
    mean = sum(float(g.diagonal().mean()) for g in grams) / len(grams)
    return total / len(found) + weight * mean * float(delta.double().square().sum()) / size


def merged(changes: WeightChanges, **options) -> torch.Tensor:
    return create_algorithm("loraclr", options).merge(changes).delta()


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"steps": 0}, {"margin": 0.05}])
def test_where_only_positives_count_it_is_least_squares(options):
    changes = given(*map(change, range(3)), grams=[gram(s) for s in range(3)], strengths=[1.0, 0.7, 1.2])
    exact = create_algorithm("least-squares", {"ridge": 1e-4}).merge(changes).delta()
    torch.testing.assert_close(merged(changes, weight=1e-4, **options), exact, rtol=1e-4, atol=1e-4)


def test_l_bfgs_finds_least_squares_from_afar():
    """The search itself, from zero and on the loss written out, arrives where the closed form begins."""
    grams = torch.stack([gram(s).double() for s in range(2)])
    own = torch.stack([change(s).delta().double() for s in range(2)])
    exact = torch.linalg.solve(grams.sum(0), (own @ grams).sum(0).T).T

    def positives(point: torch.Tensor) -> torch.Tensor:
        return (((point - own) @ grams) * (point - own)).sum()

    torch.testing.assert_close(minimised(positives, torch.zeros(OUT, WIDTH).double(), 200), exact, rtol=1e-4, atol=1e-5)


def test_the_loss_that_is_written_down_falls():
    changes = given(*map(change, range(3)), grams=[gram(s, shared=0.9) for s in range(3)])
    for margin, weight in ((1.5, 1e-3), (2.5, 1e-2)):
        before = merged(changes, margin=margin, weight=weight, steps=0)
        after = merged(changes, margin=margin, weight=weight)
        assert loss(after, changes, margin, weight) < 0.99 * loss(before, changes, margin, weight)
        for seed in range(3):  # nothing near is lower
            nudged = after + 0.01 * torch.randn(OUT, WIDTH, generator=torch.Generator().manual_seed(seed))
            assert loss(nudged, changes, margin, weight) > loss(after, changes, margin, weight)


def test_different_concepts_are_farther_apart_than_under_the_plain_sum():
    """And nearer to what each one wants."""
    grams = [gram(s, shared=0.5) for s in range(2)]
    changes = given(change(0), change(1), grams=grams)
    plain, pulled, pushed = changes.stacked().delta(), merged(changes, margin=0.0), merged(changes, margin=2.0)
    assert apart(pushed, grams) > 1.1 * apart(plain, grams) > 1.5 * apart(pulled, grams)
    for i, part in enumerate(changes.parts):
        wanted = outputs(part.change.delta(), grams)[i]
        assert (outputs(pushed, grams)[i] - wanted).norm() < (outputs(plain, grams)[i] - wanted).norm()


def test_a_larger_margin_pushes_farther():
    grams = [gram(s, shared=0.5) for s in range(3)]
    changes = given(*map(change, range(3)), grams=grams)
    distances = [apart(merged(changes, margin=margin), grams) for margin in (0.0, 1.0, 1.5, 2.0)]
    assert distances == sorted(distances) and distances[-1] > 1.5 * distances[0]


def test_twins_stay_where_they_are():
    """Equal inputs and equal changes: there is no way apart, and no infinite slope."""
    changes = given(change(0), change(0), grams=[gram(0), gram(0)])
    torch.testing.assert_close(merged(changes, weight=0.0), change(0).delta(), rtol=1e-3, atol=1e-3)


def test_a_concept_that_leaves_the_weight_alone_is_heard_too():
    grams = [gram(0), gram(1)]
    alone = merged(given(change(0), grams=grams[:1]), margin=0.0)
    both = merged(given(change(0), grams=grams, num_concepts=2), margin=0.0)
    silent = grams[1].double()
    assert ((both.double() @ silent) * both.double()).sum() < 0.7 * ((alone.double() @ silent) * alone.double()).sum()


def test_the_change_stays_low_rank_and_in_the_span_of_the_ups():
    changes = given(*map(change, range(3)), grams=[gram(s, shared=0.9) for s in range(3)])
    found = create_algorithm("loraclr", {"margin": 2.0}).merge(changes)
    assert found.rank == 6
    ups = changes.stacked().up.double()
    outside = found.delta().double() - ups @ torch.linalg.pinv(ups) @ found.delta().double()
    assert outside.abs().max() < 1e-4
    assert create_algorithm("loraclr").merge(given(*map(change, range(7)), grams=map(gram, range(7)))).rank == OUT


def test_the_same_again_bit_for_bit():
    changes = given(*map(change, range(3)), grams=[gram(s, shared=0.9) for s in range(3)])
    assert torch.equal(merged(changes, margin=2.0), merged(changes, margin=2.0))
    with torch.no_grad():
        assert torch.equal(merged(changes, margin=2.0), merged(changes, margin=2.0))


def test_the_symmetric_root_written_out():
    matrix = torch.tensor([[5.0, 4.0], [4.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(symmetric_root(matrix), torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    negative = torch.diag(torch.tensor([-1e-9, 4.0], dtype=torch.float64))
    assert symmetric_root(negative).tolist() == [[0, 0], [0, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1}, "merging option margin is -1; allowed are finite numbers from 0"),
        ({"weight": -1}, "merging option weight is -1; allowed are finite numbers from 0"),
        ({"steps": -1}, "merging option steps is -1; allowed are whole numbers from 0"),
        ({"steps": 0.5}, "option steps is 0.5; allowed are whole numbers"),
        ({"learning_rate": 0.1}, "'loraclr' has no option 'learning_rate'"),
    ],
)
def test_options_that_are_not_allowed_are_named(options, message):
    with pytest.raises(ConfigurationError, match=message):
        create_algorithm("loraclr", options)
