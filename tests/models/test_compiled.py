"""Compiled modules see every change of the set, and are not compiled again."""

from __future__ import annotations

import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.models.weights import FoldedWeights, UnmergedWeights


def change(owner: str, seed: int, strength: float = 1.0) -> Stack:
    generator = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(8, 2, generator=generator), torch.randn(2, 8, generator=generator))
    return Stack.of(owner, factors, strength)


@torch.no_grad()
def test_folded_changes_are_seen_without_compiling_again():
    network, x, counter = (
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)),
        torch.randn(3, 8),
        CompileCounter(),
    )
    engine = FoldedWeights({"n.0": network[0], "n.2": network[2]})
    compiled = torch.compile(network, backend=counter)
    plain = compiled(x)
    for sets in ({"n.0": change("anna", 1)}, {"n.0": change("rex", 2, 0.5), "n.2": change("anna", 3)}, {}):
        engine.switch(sets)
        torch.testing.assert_close(compiled(x), network(x))
    assert torch.equal(compiled(x), plain) and counter.frame_count == 1


@torch.no_grad()
def test_strengths_beside_a_layer_are_seen_without_compiling_again():
    network, x, counter = (
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)),
        torch.randn(3, 8),
        CompileCounter(),
    )
    engine = UnmergedWeights({"n.0": network[0], "n.2": network[2]})
    engine.apply({"n.0": Stack.stack([change("anna", 1), change("rex", 2)]), "n.2": change("anna", 3)})
    compiled = torch.compile(network, backend=counter)
    outputs = [compiled(x)]
    for strength in (0.5, 0.0, 2.0):
        engine.apply({name: stack.with_strength("anna", strength) for name, stack in engine.changes.items()})
        outputs.append(compiled(x))
        torch.testing.assert_close(outputs[-1], network(x))
    assert counter.frame_count == 1 and not torch.equal(outputs[0], outputs[1])
