"""Every merging algorithm on small matrices, the answers written out or found another way."""

from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging import ALGORITHMS, Part, WeightChanges, create_algorithm
from orthoplex.merging.algorithms.sparse import drop_and_rescale, elect_and_average, trim
from orthoplex.merging.algorithms.spectral import nearest_orthonormal, thin_svd


def changes(*deltas, strengths=None, grams=None, foreign=None) -> WeightChanges:
    strengths = strengths or [1.0] * len(deltas)
    parts = tuple(
        Part(f"concept {number}", delta if isinstance(delta, LowRank) else LowRank.of_matrix(delta), strength)
        for number, (delta, strength) in enumerate(zip(deltas, strengths, strict=True))
    )
    named = {} if grams is None else {f"concept {number}": gram for number, gram in enumerate(grams)}
    return WeightChanges("unet.layer", parts, len(parts), named, foreign)


def low_rank(seed: int, out_features: int = 10, in_features: int = 12, rank: int = 2) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(out_features, rank, generator=generator), torch.randn(rank, in_features, generator=generator)
    )


def gram(seed: int, width: int = 12, count: int = 40) -> torch.Tensor:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / count


def merged(name: str, given: WeightChanges, **options) -> torch.Tensor:
    return create_algorithm(name, options).merge(given).delta()


def test_any_matrix_as_factors_is_itself_bit_for_bit():
    for shape in ((3, 5), (5, 3), (4, 4)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        change = LowRank.of_matrix(matrix)
        assert change.rank == min(shape) and torch.equal(change.delta(), matrix)


A = torch.tensor([[4.0, -1.0, 0.5], [2.0, 0.0, -3.0]])
B = torch.tensor([[-1.0, -3.0, 0.25], [2.0, 1.0, -1.0]])


def test_trimming_keeps_the_largest():
    assert trim(A, 0.5).tolist() == [[4, 0, 0], [2, 0, -3]]
    assert trim(A, 0.01).tolist() == [[4, 0, 0], [0, 0, 0]]
    assert torch.equal(trim(A, 1.0), A)


def test_the_elected_sign_decides_who_counts():
    assert elect_and_average([A, B]).tolist() == [[4, -2, 0.375], [2, 1, -2]]


def test_ties_written_out():
    """Trimmed: A to 4, 2, -3; B to -3, 2 and one of its three entries of size 1 -- so B is given without ties."""
    b = torch.tensor([[-1.5, -3.0, 0.25], [2.0, 1.0, -1.0]])
    assert merged("ties", changes(A, b), density=0.5).tolist() == [[4, -3, 0], [2, 0, -3]]
    assert merged("ties", changes(A, b, strengths=[0.25, 1.0]), density=0.5).tolist() == [
        [-1.5, -3, 0],
        [1.25, 0, -0.75],
    ]


def test_dare_drops_a_share_and_keeps_the_mean():
    ones = torch.ones(200, 200)
    dropped = drop_and_rescale(ones, 0.75, seed=0, names=("layer", "concept"))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(dropped, drop_and_rescale(ones, 0.75, seed=0, names=("layer", "other")))
    assert not torch.equal(dropped, drop_and_rescale(ones, 0.75, seed=1, names=("layer", "concept")))


def test_what_dare_drops_of_a_concept_does_not_depend_on_the_others():
    alone = merged("dare", changes(A), drop=0.5)
    second = changes(A, B)
    only_b = WeightChanges("unet.layer", second.parts[1:], 2)
    torch.testing.assert_close(merged("dare", second, drop=0.5), alone + merged("dare", only_b, drop=0.5))


def test_dare_ties_without_dropping_elects():
    assert torch.equal(merged("dare-ties", changes(A, B), drop=0.0), elect_and_average([A, B]))


def test_thin_svd_is_that_of_the_product():
    change = low_rank(3, rank=4)
    u, sigma, vh = thin_svd(change)
    assert sigma.shape == (4,)
    torch.testing.assert_close(sigma, torch.linalg.svdvals(change.delta().double())[:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((u * sigma @ vh).float(), change.delta(), rtol=1e-4, atol=1e-5)


def test_nearest_orthonormal_of_a_stretched_rotation_is_the_rotation():
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).double())[0]
    stretched = rotation @ torch.diag(torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))
    torch.testing.assert_close(nearest_orthonormal(rotation @ rotation.T * 3), torch.eye(5, dtype=torch.float64))
    found = nearest_orthonormal(stretched[:, :3])
    torch.testing.assert_close(found, rotation[:, :3])


def test_svd_keeps_the_largest_triples_of_the_sum():
    diagonal = [torch.diag(torch.tensor(values)) for values in ((5.0, 0.0, 1.0), (0.0, 3.0, 0.0))]
    assert merged("svd", changes(*diagonal), rank=2).round(decimals=5).tolist() == [[5, 0, 0], [0, 3, 0], [0, 0, 0]]
    given = changes(low_rank(0), low_rank(1), low_rank(2))
    u, sigma, vh = torch.linalg.svd(given.stacked().delta())
    torch.testing.assert_close(merged("svd", given), u[:, :2] * sigma[:2] @ vh[:2], rtol=1e-3, atol=1e-4)


def test_tsv_leaves_orthogonal_changes_as_their_sum_and_parts_equal_ones():
    left, right = torch.linalg.qr(torch.randn(8, 8))[0], torch.linalg.qr(torch.randn(8, 8))[0]
    first = LowRank(left[:, :2] * torch.tensor([3.0, 1.0]), right[:2])
    second = LowRank(left[:, 2:4] * torch.tensor([2.0, 5.0]), right[2:4])
    given = changes(first, second)
    torch.testing.assert_close(merged("tsv", given), given.stacked().delta(), rtol=1e-4, atol=1e-5)
    near = LowRank(first.up + 0.1 * second.up, first.down)
    u, sigma, _ = thin_svd(create_algorithm("tsv").merge(changes(first, near)))
    expected = torch.cat([thin_svd(first)[1], thin_svd(near)[1]]).sort(descending=True).values
    torch.testing.assert_close(sigma, expected, rtol=1e-4, atol=1e-5)  # sizes stay although directions were shared


def test_tsv_keeps_its_share_of_the_triples():
    given = changes(*(low_rank(seed, rank=6) for seed in range(5)))
    assert create_algorithm("tsv").merge(given).rank == 5 * (10 // 5)


def test_tsv_takes_no_notice_of_what_is_silent():
    alone = merged("tsv", changes(low_rank(0), low_rank(1)))
    untrained = LowRank(torch.zeros(10, 2), torch.randn(2, 12))
    given = changes(low_rank(0), low_rank(1), low_rank(2), untrained, strengths=[1.0, 1.0, 0.0, 1.0])
    assert torch.equal(merged("tsv", given), alone)


def test_tsv_takes_no_notice_of_concepts_that_leave_the_weight_alone():
    given = changes(low_rank(0), low_rank(1))
    assert torch.equal(merged("tsv", replace(given, num_concepts=7)), merged("tsv", given))


def test_tsv_of_more_concepts_than_directions_keeps_one_triple_each():
    given = changes(*(low_rank(seed, out_features=3) for seed in range(5)))
    assert create_algorithm("tsv").merge(given).rank == 5


@pytest.mark.parametrize("ridge", (0.0, 1e-8, 1e-6, 1e-4))
def test_inputs_of_few_directions_do_not_blow_up_least_squares(ridge):
    """Gram matrices of float32 are indefinite where there are no inputs; nothing may be inverted there."""
    generator = torch.Generator().manual_seed(0)
    grams = []
    for _ in range(2):
        x = torch.randn(400, 20, generator=generator) @ torch.randn(20, 64, generator=generator)
        grams.append(x.T @ x / len(x))
    given = changes(low_rank(0, in_features=64), low_rank(1, in_features=64), grams=grams)
    assert merged("least-squares", given, ridge=ridge).norm() < 2 * given.stacked().delta().norm()


def test_iso_c_makes_all_singular_values_their_mean():
    given = changes(low_rank(0), low_rank(1))
    before, after = (
        torch.linalg.svdvals(delta.double())[:4] for delta in (given.stacked().delta(), merged("iso-c", given))
    )
    torch.testing.assert_close(after, before.mean().expand(4), rtol=1e-4, atol=1e-5)


def test_knots_with_everything_kept_is_the_elected_mean_in_the_shared_basis():
    """Changes that write to outputs of their own never meet in the shared basis."""
    first = LowRank(torch.eye(6)[:, :2] * 2, torch.randn(2, 7))
    second = LowRank(torch.eye(6)[:, 2:4] * 3, torch.randn(2, 7))
    given = changes(first, second)
    torch.testing.assert_close(merged("knots-ties", given, density=1.0), given.stacked().delta(), rtol=1e-4, atol=1e-5)


def test_least_squares_written_out():
    """Two inputs: concept 0 sees only the first, concept 1 only the second; each keeps its own column."""
    first, second = torch.tensor([[1.0, 9.0]]), torch.tensor([[8.0, 2.0]])
    grams = [torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 4.0]))]
    found = merged("least-squares", changes(first, second, grams=grams), ridge=0.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0]]))


def objective(delta: torch.Tensor, given: WeightChanges) -> torch.Tensor:
    return sum(
        (
            ((delta - part.strength * part.change.delta()) @ given.grams[part.concept])
            * (delta - part.strength * part.change.delta())
        ).sum()
        for part in given.parts
    )


def test_least_squares_is_what_gradient_fusion_seeks():
    given = changes(*map(low_rank, range(3)), strengths=[1.0, 0.7, 1.2], grams=[gram(s) for s in range(3)])
    exact = merged("least-squares", given, ridge=0.0)
    searched = torch.zeros(10, 12, requires_grad=True)
    optimizer = torch.optim.LBFGS([searched], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        loss = objective(searched, given)
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(exact, searched.detach(), rtol=1e-2, atol=1e-3)
    assert objective(exact, given) <= objective(searched.detach(), given) * (1 + 1e-5)
    assert create_algorithm("least-squares").merge(given).rank == 6


def test_silence_on_foreign_prompts_can_be_bought():
    foreign = gram(9)
    given = changes(low_rank(0), low_rank(1), grams=[gram(0), gram(1)], foreign=foreign)
    energies = [
        float(((delta := merged("least-squares", given, foreign=weight)) @ foreign * delta).sum())
        for weight in (0.0, 1.0, 100.0)
    ]
    assert energies[0] > 2 * energies[1] > 20 * energies[2]


def test_the_router_is_exact_where_concepts_excite_directions_of_their_own():
    downs = torch.linalg.qr(torch.randn(12, 12))[0]
    first, second = (LowRank(torch.randn(10, 2), downs[rows]) for rows in (slice(0, 2), slice(2, 4)))
    grams = [downs[rows].T @ downs[rows] for rows in (slice(0, 2), slice(2, 4))]
    given = changes(first, second, grams=grams)
    torch.testing.assert_close(merged("ssr", given, ridge=0.0), given.stacked().delta(), rtol=1e-3, atol=1e-4)


def test_the_router_is_least_squares_among_the_directions_at_hand():
    given = changes(*map(low_rank, range(3)), grams=[gram(s) for s in range(3)])
    routed, best = merged("ssr", given, ridge=0.0), merged("least-squares", given, ridge=0.0)
    down = given.stacked().down
    router = torch.linalg.lstsq(down.T.double(), routed.T.double())
    torch.testing.assert_close((down.T.double() @ router.solution).T.float(), routed, rtol=1e-3, atol=1e-4)
    nudged = routed + 0.01 * torch.randn(10, 6) @ down
    assert objective(best, given) <= objective(routed, given) < objective(nudged, given)
    assert objective(routed, given) < objective(given.stacked().delta(), given)


@pytest.mark.parametrize("name", [name for name, way in ALGORITHMS.items() if way.needs_inputs])
def test_missing_or_misshapen_grams_are_named(name):
    with pytest.raises(
        ConfigurationError, match="layer unet.layer: of 2 concepts that are merged, 0 have a Gram matrix"
    ):
        merged(name, changes(A, B))
    with pytest.raises(ConfigurationError, match=r"a Gram matrix has shape \(12, 12\); allowed is \(3, 3\)"):
        merged(name, changes(A, B, grams=[gram(0), gram(1)]))


def test_foreign_weight_needs_a_foreign_gram():
    with pytest.raises(ConfigurationError, match="merging option foreign is 1.0 and no Gram matrix of foreign prompts"):
        merged("least-squares", changes(A, grams=[torch.eye(3)]), foreign=1.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ties", {"densty": 0.5}, "'ties' has no option 'densty'; did you mean 'density'"),
        ("sum", {"density": 0.5}, "'sum' has no option 'density'; it has none"),
        ("ties", {"density": 0}, "merging option density is 0; allowed are finite numbers above 0, up to 1"),
        ("ties", {"density": "much"}, "merging option density is 'much'; allowed are finite numbers"),
        ("ties", {"density": float("nan")}, "option density is nan; allowed are finite numbers"),
        ("dare", {"drop": 1.0}, "merging option drop is 1.0; allowed are finite numbers from 0, below 1"),
        ("dare-ties", {"drop": -0.1}, "merging option drop is -0.1"),
        ("dare", {"seed": 0.5}, "option seed is 0.5; allowed are whole numbers"),
        ("dare", {"seed": 10**400}, "option seed is 10+; allowed are whole numbers"),
        ("dare", {"seed": True}, "option seed is True; allowed are whole numbers"),
        ("svd", {"rank": -1}, "merging option rank is -1; allowed are whole numbers from 0"),
        ("knots-ties", {"density": 2}, "merging option density is 2"),
        ("least-squares", {"ridge": -1}, "merging option ridge is -1"),
        ("least-squares", {"foreign": -1}, "merging option foreign is -1"),
        ("ssr", {"ridge": -1}, "merging option ridge is -1"),
    ],
)
def test_options_that_are_not_allowed_are_named(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        create_algorithm(name, options)


@pytest.mark.parametrize("name", [name for name, way in ALGORITHMS.items() if name != "mean" and not way.needs_inputs])
def test_strength_zero_leaves_a_concept_out(name):
    """But from the mean's count, and from what data-aware algorithms hear: there it asks for silence."""
    alone = merged(name, changes(low_rank(0)))
    both = merged(name, changes(low_rank(0), low_rank(1), strengths=[1.0, 0.0]))
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_concept_that_was_never_trained_merges_to_nothing(name):
    nothing = LowRank(torch.zeros(10, 2), torch.randn(2, 12))
    found = merged(name, changes(nothing, nothing, grams=[gram(0), gram(1)], foreign=gram(2)))
    assert found.shape == (10, 12) and torch.equal(found, torch.zeros(10, 12))
