"""Our LoRA is PEFT's: same starting law, same output, same change; and PEFT's way to add adapters is not ours."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from orthoplex.adapters import AdapterConfig, LowRank, create_adapter


class Tiny(torch.nn.Module):
    """One linear layer, so that PEFT has something to wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def peft_model(num_adapters: int = 1):
    """Return PEFT's model of rank 4 and alpha 6 with filled factors."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["layer"])
    model = get_peft_model(Tiny(), config, adapter_name="a0")
    for index in range(1, num_adapters):
        model.add_adapter(f"a{index}", config)
    for weights in model.base_model.model.layer.lora_B.values():
        torch.nn.init.normal_(weights.weight)
    return model


def test_forward_and_delta_agree_with_peft():
    model = peft_model()
    wrapped = model.base_model.model.layer
    ours = create_adapter(
        AdapterConfig(method="lora", rank=4, alpha=6.0),
        layer="layer", out_features=24, in_features=64, concept_id="anna", seed=0,
    )  # fmt: skip
    assert ours.scaling == wrapped.scaling["a0"] == 1.5
    with torch.no_grad():
        ours.up.copy_(wrapped.lora_B["a0"].weight)
        ours.down.copy_(wrapped.lora_A["a0"].weight)
    x = torch.randn(3, 7, 64)
    torch.testing.assert_close(wrapped.base_layer(x) + ours(x), model(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.delta(), wrapped.get_delta_weight("a0"))
    torch.testing.assert_close(ours.factors().delta(), wrapped.get_delta_weight("a0"))


def test_starting_values_follow_the_same_law():
    theirs = peft_model().base_model.model.layer.lora_A["a0"].weight
    config = AdapterConfig(method="lora", rank=4)
    ours = create_adapter(config, layer="l", out_features=24, in_features=64, concept_id="anna", seed=0).down
    for down in (ours, theirs):
        assert 0.95 / 8 < down.abs().max() <= 1 / 8
        assert down.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.1)


def test_adding_factors_is_not_adding_changes():
    """PEFT combines ups and downs apart (``linear``) and gains cross terms ``up_i down_j``; a stack has none."""
    model = peft_model(2)
    wrapped = model.base_model.model.layer
    model.add_weighted_adapter(["a0", "a1"], [1.0, 1.0], "both", combination_type="linear")
    exact = sum(wrapped.get_delta_weight(name).double() for name in ("a0", "a1"))
    parts = [LowRank(1.5 * wrapped.lora_B[name].weight, wrapped.lora_A[name].weight) for name in ("a0", "a1")]
    stacked = LowRank.stack(parts).delta()
    assert (wrapped.get_delta_weight("both") - exact).norm() > 0.5 * exact.norm()
    assert (stacked - exact).norm() < 1e-6 * exact.norm()
