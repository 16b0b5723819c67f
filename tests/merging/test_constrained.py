"""Custom Diffusion's merge beside the paper's closed form, written out with features in the place of Gram matrices."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging import Part, WeightChanges, create_algorithm

WIDTH, OUT = 12, 10
EXACT = {"ridge": 0.0, "directions": 0}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(parts: dict[str, LowRank], grams: dict[str, torch.Tensor], foreign, strengths=None) -> WeightChanges:
    strengths = strengths or {}
    named = tuple(Part(name, change, strengths.get(name, 1.0)) for name, change in parts.items())
    return WeightChanges("unet.layer", named, len(grams), grams, foreign)


def merged(changes: WeightChanges, **options) -> torch.Tensor:
    return create_algorithm("custom-diffusion", options).merge(changes).delta().double()


def change(seed: int) -> LowRank:
    return LowRank(draw(seed, OUT, 3).float(), draw(seed + 100, 3, WIDTH).float())


class World:
    """Two concepts with a few target words each, regularisation captions, and the base's weight."""

    def __init__(self) -> None:
        self.weight = draw(0, OUT, WIDTH)
        self.changes = {"anna": change(1), "rex": change(2)}
        self.strengths = {"anna": 1.0, "rex": 0.7}
        self.words = {"anna": draw(3, WIDTH, 2), "rex": draw(4, WIDTH, 3)}
        self.captions = draw(5, WIDTH, 50)

    def paper(self) -> torch.Tensor:
        """``W = W₀ + (V − W₀ C) (Cᵀ A⁻¹ C)⁻¹ Cᵀ A⁻¹``."""
        words = torch.cat(list(self.words.values()), 1)
        values = torch.cat(
            [
                (self.weight + self.strengths[name] * change.delta().double()) @ self.words[name]
                for name, change in self.changes.items()
            ],
            1,
        )
        inverse = torch.linalg.inv(self.captions @ self.captions.T)
        middle = torch.linalg.inv(words.T @ inverse @ words)
        return self.weight + (values - self.weight @ words) @ middle @ words.T @ inverse

    def given(self, *, captions_too: float = 0.0) -> WeightChanges:
        """The same as Gram matrices; a concept's prompts may hold the captions' words too."""
        foreign = self.captions @ self.captions.T / 50
        grams = {name: 40 * words @ words.T + captions_too * foreign for name, words in self.words.items()}
        return given(self.changes, grams, foreign, self.strengths)


@pytest.mark.parametrize(("captions_too", "threshold"), [(0.0, 1e-3), (0.0, 2.0), (0.9, 2.0), (1.9, 2.0)])
def test_it_is_the_papers_closed_form(captions_too, threshold):
    world = World()
    found = world.weight + merged(world.given(captions_too=captions_too), threshold=threshold, **EXACT)
    torch.testing.assert_close(found, world.paper(), rtol=1e-3, atol=1e-3)


def test_factors_of_half_precision_are_scaled_in_float32():
    world = World()
    halves = {name: LowRank(one.up.half(), one.down.half()) for name, one in world.changes.items()}
    whole = {name: LowRank(one.up.float(), one.down.float()) for name, one in halves.items()}
    told = world.given()
    found = [merged(given(parts, dict(told.grams), told.foreign, world.strengths)) for parts in (halves, whole)]
    assert torch.equal(*found)


def test_every_concept_has_its_way_with_its_own_words():
    world = World()
    found = merged(world.given(), **EXACT)
    for name, words in world.words.items():
        wanted = world.strengths[name] * world.changes[name].delta().double() @ words
        torch.testing.assert_close(found @ words, wanted, rtol=1e-3, atol=1e-3)
    plain = sum(world.strengths[name] * part.delta().double() for name, part in world.changes.items())
    assert not torch.allclose(plain @ world.words["anna"], found @ world.words["anna"], atol=0.1)


def test_no_change_that_does_so_does_less_to_the_captions():
    world = World()
    found = merged(world.given(), **EXACT)
    words = torch.cat(list(world.words.values()), 1)
    silent = torch.eye(WIDTH, dtype=torch.float64) - words @ torch.linalg.pinv(words)
    for seed in range(5):
        other = found + 0.05 * draw(20 + seed, OUT, WIDTH) @ silent
        torch.testing.assert_close(other @ words, found @ words)
        assert (other @ world.captions).norm() > (found @ world.captions).norm()


def test_a_shared_word_is_met_halfway():
    word = torch.zeros(WIDTH, 1, dtype=torch.float64)
    word[4] = 1.0
    changes = {"anna": change(1), "rex": change(2)}
    found = merged(given(changes, dict.fromkeys(changes, 9 * word @ word.T), torch.eye(WIDTH)), **EXACT)
    halfway = sum(part.delta().double() for part in changes.values()) / 2 @ word
    torch.testing.assert_close(found @ word, halfway, rtol=1e-3, atol=1e-3)


def test_words_of_a_concept_that_leaves_the_weight_alone_are_left_alone():
    world = World()
    alone = {"anna": world.changes["anna"]}
    found = merged(given(alone, dict(world.given().grams), torch.eye(WIDTH)), **EXACT)
    assert (found @ world.words["rex"]).abs().max() < 1e-3
    assert (found @ world.words["anna"]).abs().max() > 0.1


def test_directions_are_the_strongest_and_no_more_than_allowed():
    strengths = torch.zeros(WIDTH, dtype=torch.float64)
    strengths[:4] = torch.tensor([3.0, 9.0, 1.5, 5.0])
    part = LowRank.of_matrix(torch.ones(OUT, WIDTH))
    changes = given({"anna": part}, {"anna": torch.diag(strengths)}, torch.eye(WIDTH))
    for options, columns in (
        ({"directions": 0, "threshold": 2.0}, [0, 1, 3]),
        ({"directions": 2, "threshold": 2.0}, [1, 3]),
        ({"directions": 8, "threshold": 1.0}, [0, 1, 2, 3]),
    ):
        merged_change = create_algorithm("custom-diffusion", {"ridge": 0, **options}).merge(changes)
        assert merged_change.rank == len(columns)
        expected = torch.zeros(OUT, WIDTH)
        expected[:, columns] = 1.0
        torch.testing.assert_close(merged_change.delta(), expected, atol=1e-4, rtol=1e-4)


def test_prompts_that_hold_nothing_of_their_own_change_nothing():
    foreign = torch.eye(WIDTH)
    found = create_algorithm("custom-diffusion").merge(given({"anna": change(1)}, {"anna": foreign}, foreign))
    assert found.rank == 0 and torch.equal(found.delta(), torch.zeros(OUT, WIDTH))


def test_foreign_inputs_of_few_directions_do_not_blow_it_up():
    """The concept's words lie where foreign prompts have nothing at all: A alone could not be inverted."""
    captions = torch.zeros(WIDTH, 30, dtype=torch.float64)
    captions[:5] = draw(7, 5, 30)
    world = World()
    foreign = (captions @ captions.T / 30).float()
    changes = given(world.changes, {name: words @ words.T for name, words in world.words.items()}, foreign)
    for ridge in (0.0, 1e-6, 1e-3):
        found = merged(changes, ridge=ridge)
        assert found.norm() < 4 * changes.stacked().delta().norm()


def test_it_needs_the_gram_of_foreign_prompts():
    way = create_algorithm("custom-diffusion")
    assert way.needs_inputs and way.needs_foreign
    with pytest.raises(
        ConfigurationError, match="layer unet.layer: merging algorithm 'custom-diffusion' needs the Gram matrix of for"
    ):
        way.merge(given({"anna": change(1)}, {"anna": torch.eye(WIDTH)}, None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": -1}, "merging option directions is -1; allowed are whole numbers from 0"),
        ({"directions": 1.5}, "option directions is 1.5; allowed are whole numbers"),
        ({"threshold": -0.5}, "merging option threshold is -0.5; allowed are finite numbers from 0"),
        ({"ridge": -1}, "merging option ridge is -1; allowed are finite numbers from 0"),
    ],
)
def test_options_that_are_not_allowed_are_named(options, message):
    with pytest.raises(ConfigurationError, match=message):
        create_algorithm("custom-diffusion", options)
