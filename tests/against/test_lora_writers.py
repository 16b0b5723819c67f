"""Files that PEFT and diffusers write change weights as these programs change them, through ``read_lora``."""

import warnings

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import nn

from orthoplex import vignette
from orthoplex.concepts.exchange import LoraFile, read_lora

TARGETS = ["linear", "conv", "point"]


class Attention(nn.Module):
    """A block with layers of each sort, named as no table has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 32)
        self.conv = nn.Conv2d(8, 16, 3)
        self.point = nn.Conv2d(8, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Model(nn.Module):
    """Two blocks, so that patterns can tell them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Attention(), Attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


def filled(model: nn.Module) -> nn.Module:
    """Give trained parameters random values, so that no change is zero."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


def merged_changes(model: nn.Module, base: dict[str, torch.Tensor], rename=str) -> dict[str, torch.Tensor]:
    """Parameter to what the program's own merge adds to it, without parameters that stay."""
    after = {rename(name): value.detach() for name, value in model.named_parameters()}
    changes = {name: after[name].double() - base[name].double() for name in base}
    return {name: change for name, change in changes.items() if change.any()}


def check(lora: LoraFile, expected: dict[str, torch.Tensor]) -> None:
    own = {f"{layer}.weight": change.up.double() @ change.down.double() for layer, change in lora.layers.items()}
    own |= {name: value.double() for name, value in lora.differences.items()}
    assert own.keys() == expected.keys() and not lora.left_out
    for name, change in expected.items():
        torch.testing.assert_close(own[name].reshape(change.shape), change, rtol=1e-5, atol=2e-6)


PATTERNS = {"rank_pattern": {"first.linear": 2, "point": 3}, "alpha_pattern": {"second.linear": 5, "point": 1}}


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS),
        peft.LoraConfig(r=4, target_modules=TARGETS),
        peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=TARGETS),
        peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, **PATTERNS),
        peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=TARGETS, **PATTERNS),
        peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, alpha_pattern={r"(first|none)\.linear": 9}),
        peft.LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=TARGETS),
        peft.LoHaConfig(r=2, alpha=3, target_modules=TARGETS),
        peft.LoHaConfig(r=2, target_modules=TARGETS, use_effective_conv2d=True),
        peft.LoHaConfig(r=2, alpha=3, target_modules=TARGETS, **PATTERNS),
        peft.LoKrConfig(r=1, alpha=3, target_modules=TARGETS),
        peft.LoKrConfig(r=1, target_modules=TARGETS),
        peft.LoKrConfig(r=1, alpha=3, decompose_both=True, target_modules=TARGETS),
        peft.LoKrConfig(r=8, alpha=3, decompose_factor=4, target_modules=TARGETS),
        peft.LoKrConfig(r=2, alpha=3, use_effective_conv2d=True, decompose_factor=2, target_modules=TARGETS),
    ],
    ids=lambda config: f"{config.peft_type.value}-{config.r}",
)
@torch.no_grad()
def test_peft_folders(tmp_path, config):
    base = Model()
    weights = {name: value.detach().clone() for name, value in base.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = filled(peft.get_peft_model(base, config))
        model.save_pretrained(tmp_path)
        lora = read_lora(tmp_path)
        check(lora, merged_changes(model.merge_and_unload(), weights))


UNET = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]
CONFIGS = {
    "alpha": {"r": 4, "lora_alpha": 6},
    "rank stabilised": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"to_k": 2},
        "alpha_pattern": {"to_k": 5, "attn1.to_q": 1},
    },
}


def weights_of(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Our name of each parameter to its value; layers of PEFT under the names of the layers that they wrap."""
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {
        f"{component}.{name.replace('.base_layer', '')}": value.detach().clone()
        for component, part in parts.items()
        for name, value in part.named_parameters()
        if "lora_" not in name
    }


def canonical(name: str) -> str:
    """Our name of a parameter; newer text encoders have no ``text_model``."""
    start = "text_encoder."
    own = name.startswith(start) and not name.startswith(f"{start}text_model.")
    return name.replace(start, f"{start}text_model.", 1) if own else name


def fused(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """What diffusers' own fusing changes."""
    before = weights_of(pipeline)
    pipeline.fuse_lora(components=["unet", "text_encoder"])
    after = weights_of(pipeline)
    changes = {canonical(name): after[name].double() - before[name].double() for name in before}
    return {name: change for name, change in changes.items() if change.any()}


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_diffusers_pipelines(tmp_path, name):
    pipeline = StableDiffusionPipeline.from_pretrained(vignette.folder())
    unet = peft.LoraConfig(target_modules=UNET, **CONFIGS[name])
    own = {key: {"q_proj": 3} if "pattern" in key else value for key, value in CONFIGS[name].items()}
    text = peft.LoraConfig(target_modules=TEXT, **own)
    pipeline.unet.add_adapter(unet)
    pipeline.text_encoder.add_adapter(text)
    filled(pipeline.unet)
    filled(pipeline.text_encoder)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=peft.get_peft_model_state_dict(pipeline.unet),
        text_encoder_lora_layers=peft.get_peft_model_state_dict(pipeline.text_encoder),
        unet_lora_adapter_metadata=unet.to_dict(),
        text_encoder_lora_adapter_metadata=text.to_dict(),
    )
    fresh = StableDiffusionPipeline.from_pretrained(vignette.folder())
    fresh.load_lora_weights(tmp_path)
    check_pipeline(read_lora(tmp_path / "pytorch_lora_weights.safetensors"), fused(fresh))


def check_pipeline(lora: LoraFile, expected: dict[str, torch.Tensor]) -> None:
    own = {f"{canonical(layer)}.weight": change.delta().double() for layer, change in lora.layers.items()}
    assert own.keys() == expected.keys() and not lora.left_out
    for parameter, change in expected.items():
        torch.testing.assert_close(own[parameter].reshape(change.shape), change, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 3.0, None])
@torch.no_grad()
def test_kohya_files_in_diffusers_loader(tmp_path, alpha):
    """A file that safetensors writes with kohya's names; without alpha the strength is 1."""
    pipeline = StableDiffusionPipeline.from_pretrained(vignette.folder())
    torch.manual_seed(0)
    tensors = {}
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
    for name, value in weights_of(pipeline).items():
        layer = canonical(name).removesuffix(".weight")
        component, _, path = layer.partition(".")
        if name.endswith(".weight") and path.endswith((*UNET, *TEXT)):
            module = prefixes[component] + path.replace(".", "_")
            tensors[f"{module}.lora_down.weight"] = torch.randn(2, value.shape[1]) * 0.3
            tensors[f"{module}.lora_up.weight"] = torch.randn(value.shape[0], 2) * 0.3
            if alpha is not None:
                tensors[f"{module}.alpha"] = torch.tensor(alpha)
    save_file(tensors, tmp_path / "a.safetensors")
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors")
    check_pipeline(lora, fused(pipeline))
