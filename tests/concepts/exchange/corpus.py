"""Small odd LoRA files, built by code, each with what reading it must give."""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from orthoplex.concepts.exchange.payloads import PAYLOADS

WHOLE = ""
"""The outcome of a file that is read whole."""
K = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"  # (128, 192) in vignette
V = K[:-1] + "v"
OUT = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"  # (128, 128)
CONV = "unet.down_blocks.0.resnets.0.conv1"  # (96, 96, 3, 3)
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"  # (192, 192)
SIZES = {K: (128, 192), V: (128, 192), OUT: (128, 128), CONV: (96, 864), TEXT: (192, 192)}
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_"}


@dataclass(frozen=True)
class Odd:
    """A file, and what reading it gives.

    Attributes:
        tensors: Its tensors.
        outcome: Part of the error; ``WHOLE`` for a file that is read whole.
        partial: Layers that ``partial`` reads; None if that is refused too.
        family: The family that must be detected.
        version: Its version.
        style: Its style.
        metadata: Text pairs of the header.
        asked: The family that is asked for.
    """

    tensors: Mapping[str, Tensor]
    outcome: str = WHOLE
    partial: int | None = None
    family: str | None = "stable_diffusion"
    version: str | None = "vignette"
    style: str = "kohya"
    metadata: Mapping[str, str] = field(default_factory=dict)
    asked: str | None = None


def kohya(layer: str) -> str:
    component, _, path = layer.partition(".")
    return KOHYA[component] + path.replace(".", "_")


def low_rank(
    module: str, out: int, width: int, rank: int = 2, alpha: object = None, *, peft: bool = False, up_rank=None
):
    """The tensors of one module, other numbers in each; alpha None leaves it out."""
    last = 1 + zlib.crc32(module.encode()) % 64 / 32
    down, up = (".lora_A.weight", ".lora_B.weight") if peft else (".lora_down.weight", ".lora_up.weight")
    tensors = {
        module + down: torch.linspace(-1, last, rank * width).reshape(rank, width),
        module + up: torch.linspace(-1, last, out * (up_rank or rank)).reshape(out, -1),
    }
    if alpha is not None:
        tensors[f"{module}.alpha"] = alpha if isinstance(alpha, Tensor) else torch.tensor(float(str(alpha)))
    return tensors


def of(*layers: str, name=kohya, **options) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        tensors |= low_rank(name(layer), *SIZES[layer], **options)
    return tensors


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {key: tensor.to(dtype) for key, tensor in tensors.items()}


def same(layer: str) -> str:
    return layer


def _alphas() -> dict[str, Odd]:
    """Every sort of alpha beside one good module."""
    good = of(V, alpha=2)
    cases = {
        "missing": (None, WHOLE),
        "equal": (2, WHOLE),
        "half": (1, WHOLE),
        "odd": (3, WHOLE),
        "int64": (torch.tensor(2), WHOLE),
        "float16": (torch.tensor(2, dtype=torch.float16), WHOLE),
        "bfloat16": (torch.tensor(2, dtype=torch.bfloat16), WHOLE),
        "float64": (torch.tensor(2, dtype=torch.float64), WHOLE),
        "of shape (1,)": (torch.ones(1), WHOLE),
        "zero": (0, "alpha is 0"),
        "negative": (-4, "alpha is -4"),
        "nan": (math.nan, "alpha is nan"),
        "inf": (math.inf, "alpha is inf"),
        "vector": (torch.ones(2), "alpha has shape (2,)"),
        "bool": (torch.tensor(True), "type BOOL"),
    }
    return {
        f"alpha {name}": Odd(good | of(K, alpha=alpha), outcome, None if outcome == WHOLE else 1)
        for name, (alpha, outcome) in cases.items()
    }


def _types() -> dict[str, Odd]:
    return {
        f"type {str(dtype).removeprefix('torch.')}": Odd(cast(of(K, alpha=2), dtype))
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
    } | {
        "types mixed": Odd(cast(of(K, alpha=2), torch.float16) | of(V, alpha=2)),
        "up and down of other types": Odd(of(K) | {f"{kohya(K)}.lora_up.weight": torch.ones(128, 2).bfloat16()}),
    }


def _refused() -> dict[str, Odd]:
    """A module of every kind that is refused, beside a good one."""
    cases = {}
    for name, row in PAYLOADS.items():
        if row.refusal:
            part, endings = next(iter(row.parts.items()))
            tensors = {f"{kohya(K)}{endings[0].replace('.{adapter}', '')}": torch.ones(4, 4)}
            cases[f"refused {name}"] = Odd(of(V, alpha=2) | tensors, row.description, 1)
    both = of(V, alpha=2) | of(K, alpha=2) | {f"{kohya(K)}.dora_scale": torch.ones(128, 1)}
    return cases | {"DoRA beside a low-rank product": Odd(both, "DoRA", 1)}


def _names() -> dict[str, Odd]:
    peft = {"peft": True}
    old = {
        f"{K.replace('.to_k', '.processor.to_k')}_lora.down.weight": torch.ones(2, 192),
        f"{K.replace('.to_k', '.processor.to_k')}_lora.up.weight": torch.ones(128, 2),
        f"{OUT.replace('.to_out.0', '.processor.to_out')}_lora.down.weight": torch.ones(2, 128),
        f"{OUT.replace('.to_out.0', '.processor.to_out')}_lora.up.weight": torch.ones(128, 2),
    }
    named = {
        key.replace(".lora_A.", ".lora_A.mine.").replace(".lora_B.", ".lora_B.mine."): tensor
        for key, tensor in of(K, name=same, **peft).items()
    }
    two = named | of(K, name=same, **peft)
    return {
        "kohya": Odd(of(K, V, OUT, CONV, TEXT, alpha=2)),
        "kohya, text encoder numbered": Odd(of(TEXT, name=lambda layer: kohya(layer).replace("lora_te_", "lora_te1_"))),
        "kohya, text encoder alone": Odd(of(TEXT, alpha=2)),
        "kohya's window": Odd(
            {
                f"{kohya(CONV)}.lora_down.weight": torch.ones(2, 96, 3, 3),
                f"{kohya(CONV)}.lora_up.weight": torch.ones(96, 2, 1, 1),
            }
        ),
        "LyCORIS's prefix": Odd(
            of(K, alpha=2, name=lambda layer: "lycoris_" + layer.partition(".")[2].replace(".", "_"))
        ),
        "OneTrainer's older prefix": Odd(
            of(K, name=lambda layer: "lora_transformer_" + layer.partition(".")[2].replace(".", "_"))
        ),
        "diffusers": Odd(of(K, TEXT, name=same, **peft), style="diffusers"),
        "diffusers, text encoder without text_model": Odd(
            of(TEXT, name=lambda layer: layer.replace("text_model.", ""), **peft), style="diffusers"
        ),
        "diffusers' first attention processors": Odd(old, style="diffusers"),
        "diffusers' lora.down": Odd(
            {
                key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): tensor
                for key, tensor in of(K, name=same, **peft).items()
            },
            style="diffusers",
        ),
        "PEFT, an adapter's name": Odd(named, style="diffusers"),
        "PEFT, two adapters": Odd(two, "is the same part of the same module", None, style="diffusers"),
        "PEFT, parts of two adapters": Odd(
            {f"{K}.lora_A.mine.weight": torch.ones(2, 192), f"{K}.lora_B.yours.weight": torch.ones(128, 2)}
            | of(V, name=same, peft=True),
            "are of two adapters; allowed is one adapter",
            1,
            style="diffusers",
        ),
        "PEFT's wrapper": Odd(
            of(K, name=lambda layer: "base_model.model." + layer.partition(".")[2], **peft), style="bare"
        ),
        "bare": Odd(of(K, name=lambda layer: layer.partition(".")[2], **peft), style="bare"),
        "comfy": Odd(of(K, name=lambda layer: "diffusion_model." + layer.partition(".")[2], **peft), style="comfy"),
        "comfy's text encoder": Odd(
            of(TEXT, name=lambda layer: "text_encoders.clip_l.transformer." + layer.partition(".")[2], **peft),
            style="comfy",
        ),
    }


def _versions() -> dict[str, Odd]:
    xl = low_rank("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 640, 2048, alpha=2)
    return {
        "SDXL in original names": Odd(xl, family="stable_diffusion_xl", version="sdxl"),
        "SDXL in diffusers' names": Odd(
            low_rank("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 640, 2048),
            family="stable_diffusion_xl",
            version="sdxl",
        ),
        "SDXL's second text encoder": Odd(
            low_rank("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 1280, 1280),
            family="stable_diffusion_xl",
            version="sdxl",
        ),
        "styles mixed": Odd(of(K, V, alpha=2) | of(TEXT, name=same, peft=True)),
        "SD 2 by its width": Odd(
            low_rank(kohya(K.replace("down_blocks.1", "down_blocks.0")), 320, 1024), version="sd2"
        ),
        "SD 1 by its width": Odd(low_rank(kohya(K.replace("down_blocks.1", "down_blocks.0")), 320, 768), version="sd1"),
    }


def _flux() -> dict[str, Odd]:
    """Fused modules, and layers that two families share."""
    flux = {"family": "flux", "version": "flux1"}
    modulation = low_rank("lora_unet_double_blocks_0_img_mod_lin", 18432, 3072, rank=1)
    attention = low_rank("diffusion_model.double_blocks.0.img_attn.qkv", 9216, 3072, rank=1, peft=True)
    xlabs = {
        "double_blocks.0.processor.qkv_lora1.down.weight": torch.ones(1, 3072),
        "double_blocks.0.processor.qkv_lora1.up.weight": torch.ones(9216, 1),
    }
    return {
        "FLUX.1 by its modulation": Odd(modulation, **flux),
        "FLUX.1 or Chroma": Odd(attention, "fit several families: chroma, flux", style="comfy"),
        "FLUX.1 by the family asked for": Odd(attention, asked="flux", style="comfy", **flux),
        "Chroma by the version asked for": Odd(
            attention, asked="chroma", style="comfy", family="chroma", version="chroma"
        ),
        "FLUX.1 by its metadata": Odd(
            attention, metadata={"modelspec.architecture": "flux-1-dev/lora"}, style="comfy", **flux
        ),
        "Chroma by its metadata": Odd(
            attention, metadata={"ss_base_model_version": "chroma"}, style="comfy", family="chroma", version="chroma"
        ),
        "XLabs": Odd(xlabs, asked="flux", style="bare", **flux),
        "fused and apart": Odd(
            attention | low_rank("transformer.transformer_blocks.0.attn.to_q", 3072, 3072, rank=1, peft=True),
            "which 'diffusion_model.double_blocks.0.img_attn.qkv",
            3,
            asked="flux",
            style="comfy",
            **flux,
        ),
        "a family that is not there": Odd(attention, "family 'sd9' is unknown", asked="sd9"),
        "a family without these layers": Odd(attention, "no module of it is one of anima", asked="anima"),
    }


def _payloads() -> dict[str, Odd]:
    name = kohya(K)
    hadamard = {
        f"{name}.hada_w{i}_{side}": torch.ones(*shape)
        for i in (1, 2)
        for side, shape in (("a", (128, 2)), ("b", (2, 192)))
    }
    kronecker = {
        f"{name}.lokr_w1": torch.ones(4, 4),
        f"{name}.lokr_w2_a": torch.ones(32, 2),
        f"{name}.lokr_w2_b": torch.ones(2, 48),
    }
    return {
        "LoHa": Odd(hadamard),
        "LoHa in half of the layers": Odd(hadamard | of(V, alpha=2)),
        "LoHa without a part": Odd(
            {key: tensor for key, tensor in hadamard.items() if not key.endswith("w2_b")} | of(V), "allowed are", 1
        ),
        "LoKr": Odd(kronecker),
        "LoKr, a core that nothing uses": Odd(
            {f"{name}.lokr_w1": torch.ones(4, 4), f"{name}.lokr_w2": torch.ones(32, 48)}
            | {f"{name}.lokr_t2": torch.ones(2, 2, 3, 3)}
            | of(V),
            "lokr_t2 beside a whole lokr_w2",
            1,
        ),
        "a window in another order": Odd(
            {f"{kohya(CONV)}.diff": torch.ones(96, 3, 96, 3)} | of(V), "changes a weight of shape (96, 3, 96, 3)", 1
        ),
        "a full difference": Odd({f"{name}.diff": torch.ones(128, 192)} | of(V)),
        "a bias": Odd(of(K, V) | {f"{kohya(OUT)}.diff_b": torch.ones(128)}),
        "PEFT's bias": Odd(of(K, name=same, peft=True) | {f"{K}.lora_B.bias": torch.ones(128)}, style="diffusers"),
        "a norm in kohya's names": Odd(of(K) | {"lora_unet_down_blocks_1_attentions_0_norm.w_norm": torch.ones(128)}),
        "a norm of another size": Odd(
            of(K) | {"lora_unet_down_blocks_1_attentions_0_norm.w_norm": torch.ones(64)}, "changes a weight of shape", 1
        ),
        "a norm that is none": Odd(of(K) | {"lora_unet_down_blocks_1_norm.w_norm": torch.ones(128)}, "not have", 1),
        "a norm as a low-rank product": Odd(
            of(K) | low_rank("lora_unet_down_blocks_1_attentions_0_norm", 128, 1), "low-rank change of a norm", 1
        ),
        "a norm in our names": Odd(
            of(K, name=same, peft=True) | {"unet.down_blocks.1.attentions.0.norm.w_norm": torch.ones(128)},
            style="diffusers",
        ),
        "down without up": Odd(of(V) | {f"{name}.lora_down.weight": torch.ones(2, 192)}, "allowed are", 1),
        "alpha alone": Odd(of(V) | {f"{name}.alpha": torch.ones(())}, "without what they belong to", 1),
        "ranks that differ": Odd(of(V) | of(K, up_rank=3), "allowed is one rank", 1),
        "rank 0": Odd(
            of(V) | {f"{name}.lora_down.weight": torch.ones(0, 192), f"{name}.lora_up.weight": torch.ones(128, 0)},
            "none of them 0",
            1,
        ),
        "a change of another width": Odd(
            of(V, OUT) | low_rank(name, 128, 191), "changes a weight of shape (128, 191)", 2
        ),
        "a product and a difference": Odd(
            of(K, V) | {f"{name}.diff": torch.ones(128, 192)}, "allowed is one change", 1
        ),
    }


def _others() -> dict[str, Odd]:
    unknown = of(V, alpha=2) | low_rank("lora_unet_no_such_layer", 8, 8)
    strange = {f"lora_unet_tower_{i}_gate": torch.ones(1) for i in range(0)}
    for i in range(4):
        strange |= low_rank(f"lora_unet_tower_{i}_gate", 8, 8, alpha=1)
    settings = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {}, "unet.rank_pattern": {}}
    return {
        "ranks mixed": Odd(of(K, alpha=2) | of(V, alpha=4, rank=4)),
        "a layer that is not there": Odd(unknown, "does not have", 1),
        "a tensor that is no part": Odd(
            of(K) | {"position_ids": torch.ones(3)}, "is no part of a change of a layer", 1
        ),
        "many that are no part": Odd(of(K) | {f"extra.{i}": torch.ones(1) for i in range(30)}, "30 of 32 tensors", 1),
        "of no table": Odd(strange, family=None, version=None),
        "of no table, in diffusers' names": Odd(
            low_rank("transformer.tower.0.gate", 8, 8, peft=True), family=None, version=None, style="diffusers"
        ),
        "of no table, comfy": Odd(
            low_rank("diffusion_model.tower.0.gate", 8, 8, peft=True), family=None, version=None, style="comfy"
        ),
        "wrong base": Odd(low_rank(kohya(K), 130, 192), "has a change of shape (130, 192), versions of"),
        "no tensors": Odd({}, "holds no tensors"),
        "no LoRA": Odd({"weight": torch.ones(3)}, "is no LoRA file"),
        "a whole model": Odd({"model.diffusion_model.out.2.bias": torch.ones(3)}, "is a whole model"),
        "one network": Odd({"down_blocks.0.resnets.0.conv1.weight": torch.ones(3)}, "is one network of a model"),
        "settings of PEFT": Odd(
            of(K, name=same, peft=True), style="diffusers", metadata={"lora_adapter_metadata": json.dumps(settings)}
        ),
        "settings that are no JSON": Odd(
            of(K, name=same, peft=True), "is not JSON", style="diffusers", metadata={"lora_adapter_metadata": "{"}
        ),
        "settings that are a list": Odd(
            of(K, name=same, peft=True), "is a JSON list", style="diffusers", metadata={"lora_adapter_metadata": "[]"}
        ),
        "settings without a number": Odd(
            of(K, name=same, peft=True),
            "allowed are numbers above 0",
            style="diffusers",
            metadata={"lora_adapter_metadata": json.dumps({"unet.lora_alpha": "four"})},
        ),
        "a start that changes the base": Odd(
            of(K, name=same, peft=True),
            "changes the base as well",
            style="diffusers",
            metadata={"lora_adapter_metadata": json.dumps({"unet.init_lora_weights": "pissa"})},
        ),
        "settings and alpha that differ": Odd(
            of(K, V, name=same, peft=True) | {f"{K}.alpha": torch.tensor(2.0)},
            "has several factors in its alpha, its scale and the header's settings: 1, 4; allowed is one",
            1,
            style="diffusers",
            metadata={"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8})},
        ),
        "settings under kohya's names": Odd(
            of(K), metadata={"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8})}
        ),
        "a bundled embedding": Odd(of(K, alpha=2) | {"bundle_emb.anna.string_to_param.*": torch.ones(2, 192)}),
        "metadata that names another base": Odd(of(K), metadata={"ss_base_model_version": "sdxl_base_v1-0"}),
    }


CORPUS: dict[str, Odd] = _alphas() | _types() | _refused() | _names() | _versions() | _flux() | _payloads() | _others()
"""Name to file."""
