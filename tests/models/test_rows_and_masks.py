"""Concepts of single rows of a batch, and of parts of a picture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import merge
from orthoplex.models.weights import RowStack, TokenMasks, UnmergedWeights
from tests.pico import make_concept


def change(owner: str, shape: tuple[int, int], seed: int, strength: float = 1.0) -> Stack:
    generator = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(shape[0], 2, generator=generator), torch.randn(2, shape[1], generator=generator))
    return Stack.of(owner, factors, strength)


def picture(layer: str) -> str:
    return "picture"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 6), (3, 5, 4)),
        (nn.Linear(4, 6), (3, 4)),
        (nn.Conv2d(4, 6, 3, padding=1), (3, 4, 5, 5)),
        (nn.Conv1d(4, 6, 1), (3, 4, 7)),
    ],
    ids=str,
)
@torch.no_grad()
def test_each_row_has_its_own_set(layer, shape):
    width = layer.weight[0].numel()
    anna, rex, bias = change("anna", (6, width), 1), change("rex", (6, width), 2, 0.5), change("anna", (6, 1), 3)
    both, x = Stack.stack([anna, rex.with_strength("rex", -2.0)]), torch.randn(shape)
    plain, alone = layer(x), []
    for sets in ({"n.0": anna, "n.0.bias": bias}, {}, {"n.0": both}):
        engine = UnmergedWeights({"n.0": layer})
        engine.apply(sets)
        alone.append(layer(x))
        engine.restore()
    engine = UnmergedWeights({"n.0": layer})
    engine.put_rows({"n.0": RowStack.of([anna, None, both]), "n.0.bias": RowStack.of([bias, None, None])})
    assert engine.changes["n.0"].rank == 4  # anna's columns are there once
    twice = layer(torch.cat([x, x]))
    for row in range(3):
        torch.testing.assert_close(twice[row], alone[row][row])
        torch.testing.assert_close(twice[row + 3], alone[row][row])
    assert torch.equal(layer(x)[1], plain[1])
    with pytest.raises(
        BaseModelError, match="layer 'n.0' is given a batch of 4, and 3 rows have concepts of their own"
    ):
        layer(torch.cat([x, x[:1]]))
    engine.restore()
    assert torch.equal(layer(x), plain)


def test_nothing_but_none_is_no_stack():
    assert RowStack.of([None, None]) is None


@torch.no_grad()
def test_masks_weigh_every_position():
    layer, owners = nn.Linear(4, 6), {"anna": change("anna", (6, 4), 1), "rex": change("rex", (6, 4), 2)}
    engine, x = UnmergedWeights({"n.0": layer}), torch.randn(2, 8, 4)
    plain = layer(x)
    engine.apply({"n.0": Stack.stack(list(owners.values()))})
    whole = layer(x)
    left = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    engine.set_masks(TokenMasks({"anna": left.repeat_interleave(2, 1), "rex": torch.ones(2, 4)}, picture))
    masked = layer(x)
    grid = left.repeat_interleave(2, 1).flatten()
    expected = plain + x @ owners["rex"].delta().T + grid[:, None] * (x @ owners["anna"].delta().T)
    torch.testing.assert_close(masked, expected)
    engine.set_masks(TokenMasks({name: torch.ones(1, 2) for name in owners}, picture))
    assert torch.equal(layer(x), whole)
    engine.set_masks(TokenMasks({name: torch.zeros(1, 2) for name in owners}, picture))
    assert torch.equal(layer(x), plain)
    engine.set_masks(None)
    assert torch.equal(layer(x), whole)


@torch.no_grad()
def test_masks_reach_convolutions_and_biases_and_go_with_rows():
    layer, x = nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 4, 4)
    anna, bias, plain = change("anna", (6, 36), 1), change("anna", (6, 1), 2), layer(x)
    engine = UnmergedWeights({"n.0": layer})
    engine.put_rows({"n.0": RowStack.of([anna, None]), "n.0.bias": RowStack.of([anna and bias, None])})
    whole = layer(x)
    engine.set_masks(TokenMasks({"anna": torch.tensor([[1.0, 0.0]] * 2)}, picture))
    masked = layer(x)
    torch.testing.assert_close(masked[0, :, :, :2], whole[0, :, :, :2])
    assert torch.equal(masked[0, :, :, 2:], plain[0, :, :, 2:]) and torch.equal(masked[1], plain[1])


def test_masks_are_of_whole_concepts_and_of_pictures():
    layer, x = nn.Linear(4, 6), torch.randn(1, 7, 4)
    engine = UnmergedWeights({"n.0": layer})
    engine.apply({"n.0": change("anna", (6, 4), 1)})
    masks = {"anna": torch.ones(2, 2)}
    with pytest.raises(ConfigurationError, match="layer 'n.0' sees text and picture side by side; masks are allowed"):
        engine.set_masks(TokenMasks(masks, lambda layer: "both"))
    engine.set_masks(TokenMasks(masks, lambda layer: "text"))
    layer(x)  # texts are of any length
    engine.set_masks(TokenMasks(masks, picture))
    with pytest.raises(ConfigurationError, match=r"layer 'n.0' has positions \(7,\); allowed with masks of 2 x 2 are"):
        layer(x)
    for bad in (torch.ones(3), torch.full((2, 2), 1.5), torch.full((2, 2), float("nan")), torch.ones(0, 2)):
        with pytest.raises(ConfigurationError, match="mask of anna has shape .* allowed are"):
            TokenMasks({"anna": bad}, picture)
    with pytest.raises(ConfigurationError, match=r"masks have shapes \(2, 2\), \(2, 3\); allowed is one shape"):
        TokenMasks({"anna": torch.ones(2, 2), "rex": torch.ones(2, 3)}, picture)
    with pytest.raises(ConfigurationError, match="layer 'n.0' has columns that are mixed from several concepts"):
        engine.apply({"n.0": Stack.of(None, change("anna", (6, 4), 1).low_rank)})
    engine.set_masks(None)
    engine.apply({"n.0": Stack.of(None, change("anna", (6, 4), 1).low_rank)})
    with pytest.raises(ConfigurationError, match="layer 'n.0' has columns that are mixed from several concepts"):
        engine.set_masks(TokenMasks(masks, picture))
    grouped = UnmergedWeights({"n.0": nn.Conv2d(4, 6, 1, groups=2)})
    grouped.apply({"n.0": change("anna", (6, 2), 1)})
    with pytest.raises(BaseModelError, match="layer 'n.0' is a convolution in 2 groups; allowed with masks are"):
        grouped.set_masks(TokenMasks(masks, picture))


def test_half_of_a_picture_is_the_base(pico):
    anna, rex = make_concept(pico, "anna", selection="attention", seed=1), make_concept(pico, "rex", seed=2)
    noise, times = pico.family.noise(1, torch.Generator().manual_seed(0)), torch.tensor(500)
    with torch.no_grad():
        plain = pico.family.predict(noise, times, pico.family.condition(["a cat"]))
        with pico.fold(merge([(anna, 1.0), (rex, 1.0)], algorithm="sum"), unmerged=True) as undo:
            whole = pico.family.predict(noise, times, pico.family.condition(["a cat"]))
            undo.mask({owner: torch.ones(2, 2) for owner in undo.strengths and (anna.content_hash, rex.content_hash)})
            assert torch.equal(pico.family.predict(noise, times, pico.family.condition(["a cat"])), whole)
            undo.mask({anna.content_hash: torch.tensor([[1.0, 0.0]] * 2)})
            half = pico.family.predict(noise, times, pico.family.condition(["a cat"]))
            assert not torch.equal(half, whole) and not torch.equal(half, plain)
            with pytest.raises(
                ConfigurationError, match="mask of concept 'tom', which is not in the base; allowed are"
            ):
                undo.mask({"tom": torch.ones(2, 2)})
            undo.mask(None)
            assert torch.equal(pico.family.predict(noise, times, pico.family.condition(["a cat"])), whole)
        with pico.blend([anna], unmerged=True) as blend:
            blend.mask({anna.content_hash: torch.ones(2, 2)})
    with pico.fold(anna) as undo:
        with pytest.raises(ConfigurationError, match="is folded into its weight; masks are allowed with unmerged=True"):
            undo.mask({anna.content_hash: torch.ones(2, 2)})
