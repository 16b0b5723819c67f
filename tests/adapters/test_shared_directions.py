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


def test_directions_are_rounded_once_for_all_that_share_them():
    first, second = adapter_of("a"), adapter_of("bb")
    share_directions([first, second])
    x = torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True)
    stored: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda values: stored.append(values) or values, lambda values: values
    ):
        first(x), second(x), first(x)  # noqa: B018
    rounded = {values.data_ptr() for values in stored if 8 in values.shape and values.dtype == torch.bfloat16}
    assert len(rounded) == 1


def by_hand(adapter, x):
    down, up = (values.to(torch.bfloat16) for values in (adapter.down, adapter.up))
    return nn.functional.linear(nn.functional.linear(x.to(torch.bfloat16), down), up)


def test_rounded_directions_follow_what_they_are_rounded_from():
    first, second = adapter_of("a"), adapter_of("bb")
    share_directions([first, second])
    x = torch.randn(5, 8)

    def check():
        for adapter in (first, second):
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(adapter(x), by_hand(adapter, x))
            assert torch.equal(adapter(x.bfloat16()), by_hand(adapter, x))

    check()
    second.set_directions(torch.randn(2, 8))
    check()
    first.load_state_dict({**first.state_dict(), "down": torch.randn(2, 8)})
    check()
    first.double().float()
    check()
