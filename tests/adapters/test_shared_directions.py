"""Adapters with equal frozen directions hold one tensor."""

from __future__ import annotations

import torch
from torch import nn

from orthoplex.adapters import AdapterConfig, create_adapter, share_directions


def adapter_of(name: str, method: str = "orthogonal", **options):
    config = AdapterConfig(method=method, rank=2, slot=0)
    adapter = create_adapter(config, layer=name, out_features=3, in_features=8, concept_id="c", seed=0, **options)
    adapter.up.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    return adapter


def test_equal_directions_become_one_tensor_and_part_again():
    first, second, other = adapter_of("a"), adapter_of("bb"), adapter_of("ccc", "lora")
    assert first.down is not second.down and torch.equal(first.down, second.down)
    share_directions([first, second, other])
    assert second.down is first.down and isinstance(other.down, nn.Parameter)
    before = first.down.clone()
    second.set_directions(torch.ones(2, 8))
    assert torch.equal(first.down, before) and second.down.sum() == 16
    second.load_factors(first.factors())
    assert torch.equal(second.down, before) and second.down is not first.down
