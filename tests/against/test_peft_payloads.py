"""Changes that PEFT writes are read as PEFT applies them; what no sum can hold is refused by name."""

import warnings

import peft
import pytest
import torch
from torch import nn

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.exchange.payloads import PAYLOADS, load_payload, payloads_of, split_key


class Base(nn.Module):
    """A layer of each sort that adapters are for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 32)
        self.conv = nn.Conv2d(8, 16, 3)
        self.point = nn.Conv2d(8, 16, 1)
        self.embedding = nn.Embedding(20, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def trained(config: peft.PeftConfig) -> peft.PeftModel:
    """Return a model whose adapter has random values, so that no change is zero."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(Base(), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return model


def modules_of(model: peft.PeftModel) -> dict[str, dict[str, torch.Tensor]]:
    """Return module to part to tensor, of a file that PEFT would write; every key is taken apart."""
    modules: dict[str, dict[str, torch.Tensor]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = peft.get_peft_model_state_dict(model)
    for key, tensor in state.items():
        parts = split_key(key)
        assert parts, key
        assert parts.part not in modules.setdefault(parts.module, {}), key
        modules[parts.module][parts.part] = tensor.detach()
    return modules


TARGETS = ["linear", "conv", "point"]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (peft.LoraConfig(r=4, lora_alpha=6, target_modules=[*TARGETS, "embedding"]), "low-rank"),
        (peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=TARGETS), "low-rank"),
        (peft.LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=TARGETS), "low-rank"),
        (peft.LoHaConfig(r=2, alpha=3, target_modules=TARGETS), "hadamard"),
        (peft.LoHaConfig(r=2, alpha=3, use_effective_conv2d=True, target_modules=TARGETS), "hadamard"),
        (peft.LoKrConfig(r=1, alpha=3, target_modules=TARGETS), "kronecker"),
        (peft.LoKrConfig(r=1, alpha=3, decompose_both=True, target_modules=TARGETS), "kronecker"),
        (
            peft.LoKrConfig(r=2, alpha=3, use_effective_conv2d=True, decompose_factor=2, target_modules=TARGETS),
            "kronecker",
        ),
        (peft.LoKrConfig(r=8, alpha=3, decompose_factor=4, target_modules=TARGETS), "kronecker"),
    ],
)
def test_changes_are_those_of_peft(config, kind):
    model = trained(config)
    for module, parts in modules_of(model).items():
        layer = model.get_submodule(module)
        weight = layer.base_layer.weight
        names = payloads_of(parts)
        assert names[0] == ("low-rank embedding" if isinstance(layer.base_layer, nn.Embedding) else kind)
        expected = layer.get_delta_weight("default")
        row = PAYLOADS[names[0]]
        own = {part: tensor for part, tensor in parts.items() if part in row.parts}
        change = load_payload(names[0]).change(own, shape=tuple(weight.shape), factor=layer.scaling["default"])
        delta = change.delta() if isinstance(change, LowRank) else change.values
        torch.testing.assert_close(delta.reshape(weight.shape), expected, rtol=1e-5, atol=1e-5)
        if getattr(config, "lora_bias", False):
            assert names[1:] == ["low-rank bias"]
            own = {part: tensor for part, tensor in parts.items() if part in PAYLOADS[names[1]].parts}
            bias = load_payload(names[1]).change(own, factor=layer.scaling["default"]).values
            before = layer.base_layer.bias.detach().clone()
            layer.merge()
            torch.testing.assert_close(bias, layer.base_layer.bias - before, rtol=1e-5, atol=1e-5)


LINEAR = {"target_modules": ["linear"]}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (peft.LoraConfig(r=4, use_dora=True, **LINEAR), "dora"),
        (peft.LoraConfig(r=4, target_modules=["linear"], modules_to_save=["conv"]), "replacement"),
        (peft.LoraConfig(r=4, bias="all", **LINEAR), "replacement"),
        (peft.OFTConfig(oft_block_size=4, **LINEAR), "oft"),
        (peft.BOFTConfig(boft_block_size=4, **LINEAR), "oft"),
        (peft.HRAConfig(r=2, **LINEAR), "oft"),
        (peft.RoadConfig(group_size=4, **LINEAR), "oft"),
        (peft.IA3Config(target_modules=["linear"], feedforward_modules=[]), "ia3"),
        (peft.VeraConfig(r=4, **LINEAR), "settings"),
        (peft.RandLoraConfig(r=4, **LINEAR), "settings"),
        (peft.FourierFTConfig(n_frequency=8, **LINEAR), "settings"),
        (peft.WaveFTConfig(n_frequency=8, **LINEAR), "settings"),
        (peft.VBLoRAConfig(r=4, num_vectors=8, vector_length=8, **LINEAR), "settings"),
        (peft.ShiraConfig(r=2, **LINEAR), "shira"),
        (peft.C3AConfig(block_size=8, **LINEAR), "settings"),
        (peft.MissConfig(r=4, **LINEAR), "settings"),
        (peft.GraloraConfig(r=4, gralora_k=2, **LINEAR), "settings"),
        (peft.DeloraConfig(r=4, **LINEAR), "settings"),
        (peft.HiraConfig(r=4, **LINEAR), "hira"),
        (peft.GloraConfig(r=4, **LINEAR), "glora"),
        (peft.AdaLoraConfig(init_r=4, total_step=10, **LINEAR), "adalora"),
        (peft.LNTuningConfig(**LINEAR), "network"),
        (peft.PsoftConfig(r=4, **LINEAR), "settings"),
        (peft.TinyLoraConfig(r=2, u=4, **LINEAR), "settings"),
        (peft.UniLoraConfig(r=2, **LINEAR), "settings"),
        (peft.PveraConfig(r=4, **LINEAR), "network"),
        (peft.LilyConfig(r=4, **LINEAR), "network"),
        (peft.PeanutConfig(r=4, **LINEAR), "network"),
        (peft.OSFConfig(**LINEAR), "network"),
        (peft.FrodConfig(**LINEAR), "network"),
        (peft.DeftConfig(**LINEAR), "network"),
        (peft.BeftConfig(**LINEAR), "network"),
        (peft.SupertuningConfig(**LINEAR), "network"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_kinds_that_no_sum_holds_are_refused(config, kind):
    modules = modules_of(trained(config))
    assert modules
    names = {name for parts in modules.values() for name in payloads_of(parts)}
    assert kind in names and names <= {kind, "low-rank"}


@pytest.mark.parametrize(
    ("config", "wholes"),
    [
        (peft.LoKrConfig(r=8, alpha=3, target_modules=["linear"]), 2),
        (peft.LoKrConfig(r=8, alpha=16, rank_pattern={"linear": 6}, target_modules=["linear"]), 2),
        (peft.LoKrConfig(r=8, alpha=16, alpha_pattern={"linear": 2}, target_modules=["linear"]), 2),
        (peft.LoKrConfig(r=1, alpha=3, target_modules=["linear"]), 1),
        (peft.LoHaConfig(r=2, alpha=3, target_modules=["linear"]), 0),
    ],
)
def test_folders_of_peft_are_read_with_its_factor(config, wholes, tmp_path):
    model = trained(config)
    parts = modules_of(model)["base_model.model.linear"]
    assert len(parts.keys() & {"lokr_w1", "lokr_w2"}) == wholes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    lora = read_lora(tmp_path)
    change = {**{f"{layer}.weight": each.delta() for layer, each in lora.layers.items()}, **lora.differences}
    delta = model.get_submodule("base_model.model.linear").get_delta_weight("default")
    torch.testing.assert_close(change["linear.weight"], delta.detach(), rtol=1e-5, atol=1e-5)
