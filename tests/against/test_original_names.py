"""The original modules of layer tables are those of diffusers' own converters: names, rows, and exchanged halves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as loras
from diffusers.loaders import single_file_utils as checkpoints
from torch import Tensor

from orthoplex.concepts.layer_table import component_of, layer_table, layer_tables

UP = re.compile(r"(\.lora_B|[._]lora\.up)\.weight$")


def column(version: str, *, with_norms: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A column of numbers for every original module, no two the same, and the part of it that is each layer's."""
    table, first = layer_table(version), 1
    shapes = table.weights[version]
    modules, layers = {}, {}
    for name, module in table.original_modules(version).items():
        if len(shapes[module.layers[0]]) == 1 and not with_norms:
            continue
        heights = [shapes[layer][0] for layer in module.layers]
        modules[name] = torch.arange(first, first + sum(heights), dtype=torch.float32)[:, None]
        first += sum(heights)
        for layer, part in zip(module.layers, modules[name].split(heights), strict=True):
            layers[layer] = torch.cat(part.chunk(2)[::-1]) if module.swapped_halves else part
    assert first < 2**24, "float32 tells all rows apart"
    return modules, layers


def differences(converted: Mapping[str, Tensor], layers: Mapping[str, Tensor]) -> dict[str, str]:
    """Layer, with # for its blocks' numbers, to what is different: missing, other rows, or unknown to the table."""
    different = {name: "unknown" for name in converted if name not in layers}
    for name, rows in layers.items():
        if name not in converted:
            different[name] = "missing"
        elif not torch.equal(converted[name].flatten(), rows.flatten()):
            halves = torch.cat(converted[name].chunk(2)[::-1])
            different[name] = "halves" if torch.equal(halves.flatten(), rows.flatten()) else "rows"
    return {re.sub(r"\.\d+\.", ".#.", name, count=1): reason for name, reason in different.items()}


class Checkpoint(dict[str, Tensor]):
    """A checkpoint with anything else that a converter asks for."""

    def pop(self, key: str, *default: Any) -> Tensor:
        return super().pop(key, torch.zeros(2))


SINGLE_FILES: dict[str, Callable[[Checkpoint], Mapping[str, Tensor]]] = {
    "sd1": lambda weights: checkpoints.convert_ldm_unet_checkpoint(weights, {"layers_per_block": 2}),
    "sd2": lambda weights: checkpoints.convert_ldm_unet_checkpoint(weights, {"layers_per_block": 2}),
    "sdxl": lambda weights: checkpoints.convert_ldm_unet_checkpoint(
        weights, {"layers_per_block": 2, "addition_embed_type": "text_time"}
    ),
    "flux1": checkpoints.convert_flux_transformer_checkpoint_to_diffusers,
    "chroma": checkpoints.convert_chroma_transformer_checkpoint_to_diffusers,
    "flux2": checkpoints.convert_flux2_transformer_checkpoint_to_diffusers,
    "flux2-klein-4b": checkpoints.convert_flux2_transformer_checkpoint_to_diffusers,
    "flux2-klein-9b": checkpoints.convert_flux2_transformer_checkpoint_to_diffusers,
    "z-image": checkpoints.convert_z_image_transformer_checkpoint_to_diffusers,
    "krea2": checkpoints.convert_krea2_transformer_checkpoint_to_diffusers,
    "anima": checkpoints.convert_cosmos_transformer_checkpoint_to_diffusers,
}
"""Version to the converter of its checkpoint; Qwen-Image and Ideogram 4 have none, and Anima's adapter has none."""


@pytest.mark.parametrize("version", SINGLE_FILES)
def test_a_checkpoint_is_read_as_diffusers_reads_it(version):
    modules, layers = column(version, with_norms=True)
    prefix = "model.diffusion_model." if version.startswith("sd") else ""
    weights = Checkpoint()
    for name, rows in modules.items():
        if not name.startswith("llm_adapter."):
            ends = ("",) if name.endswith(".scale") else (".weight", ".bias")
            weights |= dict(zip((f"{prefix}{name}{end}" for end in ends), (rows, rows[:, 0]), strict=False))
    converted = SINGLE_FILES[version](weights)
    component = component_of(next(iter(layers)))
    names = {
        f"{component}.{key.removesuffix('.weight')}": rows
        for key, rows in converted.items()
        if key.endswith(".weight") and rows.any()
    }
    adapter = {name for name in layers if name.startswith("text_conditioner.")}
    assert differences(names, {name: rows for name, rows in layers.items() if name not in adapter}) == {}


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


def comfy(name: str) -> str:
    return f"diffusion_model.{name}"


def through_blocks(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As diffusers reads a file of SDXL."""
    mapped = loras._maybe_map_sgm_blocks_to_diffusers(weights, SimpleNamespace(layers_per_block=2))
    converted = loras._convert_non_diffusers_lora_to_diffusers(mapped)[0]
    return {key.replace(".processor", "").replace("to_out_lora", "to_out.0_lora"): converted[key] for key in converted}


@dataclass(frozen=True)
class Converter:
    """A converter of LoRA files.

    Attributes:
        convert: Takes the keys of a file.
        spelling: Original module to its key.
        ends: The endings of both factors.
        different: What it does not do as the table says, by layer.
        takes: The original modules that it takes without an error.
    """

    convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
    spelling: Callable[[str], str]
    ends: tuple[str, str] = ("lora_down", "lora_up")
    different: Mapping[str, str] = field(default_factory=dict)
    takes: str = ""


PEFT = ("lora_A", "lora_B")
WITHOUT_COMPONENT = (
    "x_embedder",
    "context_embedder",
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2",
    "time_text_embed.guidance_embedder.linear_1",
    "time_text_embed.guidance_embedder.linear_2",
    "time_text_embed.text_embedder.linear_1",
    "time_text_embed.text_embedder.linear_2",
    "norm_out.linear",
    "proj_out",
)
"""What the converter of FLUX.1 returns without ``transformer.``; the loader then leaves it out."""
MODULATION = {
    "transformer.norm_out.linear": "missing",
    "transformer.double_stream_modulation_img.linear": "missing",
    "transformer.double_stream_modulation_txt.linear": "missing",
    "transformer.single_stream_modulation.linear": "missing",
}
"""What the converter of kohya's FLUX.2 leaves out, with a warning."""
HALVES = {"transformer.norm_out.linear": "halves"}
"""The converter of FLUX.2's files does not exchange the halves, which that of its checkpoints does."""
FLUX2 = loras._convert_non_diffusers_flux2_lora_to_diffusers
KOHYA_FLUX2 = loras._convert_kohya_flux2_lora_to_diffusers
QWEN = loras._convert_non_diffusers_qwen_lora_to_diffusers
CONVERTERS = {
    "sdxl kohya": Converter(through_blocks, kohya),
    "flux1 kohya": Converter(
        loras._convert_kohya_flux_lora_to_diffusers,
        kohya,
        different={
            **dict.fromkeys((f"transformer.{name}" for name in WITHOUT_COMPONENT), "missing"),
            **dict.fromkeys(WITHOUT_COMPONENT, "unknown"),
        },
    ),
    "chroma kohya": Converter(
        loras._convert_kohya_flux_lora_to_diffusers,
        kohya,
        takes=r"(double|single)_blocks\.",
        different={
            "transformer.x_embedder": "missing",
            "transformer.context_embedder": "missing",
            "transformer.proj_out": "missing",
            "transformer.distilled_guidance_layer.in_proj": "missing",
            "transformer.distilled_guidance_layer.layers.#.linear_1": "missing",
            "transformer.distilled_guidance_layer.layers.#.linear_2": "missing",
            "transformer.distilled_guidance_layer.out_proj": "missing",
        },
    ),
    "flux2 comfy": Converter(FLUX2, comfy, PEFT, different=HALVES),
    "flux2-klein-4b comfy": Converter(FLUX2, comfy, PEFT, different=HALVES),
    "flux2-klein-9b comfy": Converter(FLUX2, comfy, PEFT, different=HALVES),
    "flux2 kohya": Converter(
        KOHYA_FLUX2,
        kohya,
        different={
            **MODULATION,
            "transformer.time_guidance_embed.guidance_embedder.linear_1": "missing",
            "transformer.time_guidance_embed.guidance_embedder.linear_2": "missing",
        },
    ),
    "flux2-klein-4b kohya": Converter(KOHYA_FLUX2, kohya, different=MODULATION),
    "flux2-klein-9b kohya": Converter(KOHYA_FLUX2, kohya, different=MODULATION),
    "qwen-image kohya": Converter(QWEN, kohya),
    "qwen-image comfy": Converter(QWEN, comfy, PEFT),
    "z-image kohya": Converter(
        loras._convert_non_diffusers_z_image_lora_to_diffusers,
        kohya,
        takes="(?!final_layer|x_embedder)",  # it renames these two in diffusers' spelling alone
        different={
            "transformer.all_final_layer.2-1.linear": "missing",
            "transformer.all_final_layer.2-1.adaLN_modulation.1": "missing",
            "transformer.all_x_embedder.2-1": "missing",
        },
    ),
    "krea2 comfy": Converter(loras._convert_non_diffusers_krea2_lora_to_diffusers, comfy, PEFT),
    "anima comfy": Converter(loras._convert_non_diffusers_anima_lora_to_diffusers, comfy, PEFT),
    "ideogram4 comfy": Converter(
        loras._convert_non_diffusers_ideogram4_lora_to_diffusers,
        comfy,
        PEFT,
        takes=r"layers\.",
        different={
            "transformer.input_proj": "missing",
            "transformer.llm_cond_proj": "missing",
            "transformer.t_embedding.mlp_in": "missing",
            "transformer.t_embedding.mlp_out": "missing",
            "transformer.adaln_proj": "missing",
            "transformer.final_layer.linear": "missing",
            "transformer.final_layer.adaln_modulation": "missing",
        },
    ),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_lora_is_read_as_diffusers_reads_it(name):
    converter = CONVERTERS[name]
    modules, layers = column(name.split()[0])
    weights = {}
    for module, rows in modules.items():
        if re.match(converter.takes, module):
            factors = zip(converter.ends, (torch.ones(1, 1), rows), strict=True)
            weights |= {f"{converter.spelling(module)}.{end}.weight": factor for end, factor in factors}
    converted = {UP.sub("", key): rows for key, rows in converter.convert(weights).items() if UP.search(key)}
    assert differences(converted, layers) == converter.different


def test_every_version_is_compared():
    equal = {"sd2-v", "sdxl-v", "vignette"}
    compared = {name.split()[0] for name in (*SINGLE_FILES, *CONVERTERS)}
    assert compared == {version for table in layer_tables().values() for version in table.versions} - equal
