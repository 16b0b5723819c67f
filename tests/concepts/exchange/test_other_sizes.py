"""Files for bases whose sizes no published version has: names tell their layers, shapes are the file's own."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange import LoraFile, lora_summary, read_lora, write_lora
from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import write_tensors
from orthoplex.merging.file_merge import merge_files
from orthoplex.merging.strengths import Strengths

FIRST = "down_blocks.0.attentions.0.transformer_blocks.0"
DEEP = "down_blocks.2.attentions.0.transformer_blocks.9"
CONV = "down_blocks.0.resnets.0.conv1"
NORM = "down_blocks.0.resnets.0.norm1"


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def change(out: int, width: int, seed: int = 0) -> LowRank:
    return LowRank(numbers(out, 2, seed=seed), numbers(2, width, seed=seed + 1))


def unet(family: str, inner: str) -> LoraFile:
    layers = {f"unet.{inner}.attn2.to_k": change(40, 24), f"unet.{inner}.attn1.to_q": change(40, 40)}
    layers[f"unet.{CONV}"] = change(20, 9 * 20)
    norms = {f"unet.{NORM}.weight": numbers(20), f"unet.{NORM}.bias": numbers(20)}
    return LoraFile("narrow", "kohya", family, None, layers, {f"unet.{CONV}": (3, 3)}, norms)


def same(first: LoraFile, second: LoraFile) -> bool:
    assert first.layers.keys() == second.layers.keys() and first.differences.keys() == second.differences.keys()
    deltas = (torch.equal(first.layers[layer].delta(), second.layers[layer].delta()) for layer in first.layers)
    return all(deltas) and all(
        torch.equal(first.differences[key], second.differences[key]) for key in first.differences
    )


@pytest.mark.parametrize(
    ("family", "inner", "style"),
    [
        ("stable_diffusion", FIRST, "kohya"),
        ("stable_diffusion_xl", DEEP, "kohya"),
        ("stable_diffusion_xl", DEEP, "comfy"),
    ],
)
def test_a_narrow_base_is_read_merged_and_written(tmp_path, family, inner, style):
    path, lora = tmp_path / "a.safetensors", unet(family, inner)
    write_lora(lora, path, style=style)
    again = read_lora(path)
    assert (again.family, again.version, again.style, again.windows) == (family, None, style, lora.windows)
    assert same(again, lora)
    merged = merge_files([(again, Strengths(0.5))]).lora
    write_lora(merged, tmp_path / "b.safetensors", style=style)
    assert read_lora(tmp_path / "b.safetensors").layers.keys() == lora.layers.keys()
    assert "sizes of its own" in dict(lora_summary(path).lines())["family"]


def test_fused_layers_are_parts_of_one_size(tmp_path):
    layers = {f"transformer.transformer_blocks.0.attn.to_{part}": change(8, 6, i) for i, part in enumerate("qkv")}
    layers["transformer.transformer_blocks.0.norm1.linear"] = change(48, 6)
    lora = LoraFile("narrow", "comfy", "flux", None, layers)
    write_lora(lora, tmp_path / "a.safetensors", style="comfy")
    again = read_lora(tmp_path / "a.safetensors")
    assert again.version is None and same(again, lora)
    two = {layer: change for layer, change in layers.items() if not layer.endswith("to_k")}
    write_lora(LoraFile("two", "comfy", "flux", None, two), tmp_path / "b.safetensors", style="comfy")
    assert not read_lora(tmp_path / "b.safetensors").layers["transformer.transformer_blocks.0.attn.to_k"].delta().any()


@pytest.mark.parametrize(
    ("module", "rows", "words"),
    [
        ("double_blocks.0.img_attn.qkv", 25, "has 25 rows of 3 layers, and no version has its sizes"),
        ("single_blocks.0.linear1", 56, "has 56 rows of 4 layers, and no version has its sizes"),
        ("single_blocks.0.norm.key_norm.scale", 8, "a norm has one size"),
    ],
)
def test_rows_that_nothing_tells_are_refused(tmp_path, module, rows, words):
    own = {"double_blocks.0.img_mod.lin": 48, "double_blocks.1.img_mod.lin": 48, module: rows}
    keys = {f"diffusion_model.{name}.lora_A.weight": numbers(2, 6) for name in own}
    keys |= {f"diffusion_model.{name}.lora_B.weight": numbers(size, 2) for name, size in own.items()}
    write_tensors(keys, tmp_path / "a.safetensors")
    with pytest.raises(FileFormatError, match=words):
        read_lora(tmp_path / "a.safetensors")


def test_a_window_that_does_not_divide_is_refused(tmp_path):
    keys = {f"lora_unet_{CONV.replace('.', '_')}.lora_{part}.weight": numbers(20, 20) for part in ("down", "up")}
    keys |= {
        f"lora_unet_{FIRST.replace('.', '_')}_attn2_to_k.lora_{part}.weight": numbers(9, 9) for part in ("down", "up")
    }
    write_tensors(keys, tmp_path / "a.safetensors")
    with pytest.raises(FileFormatError, match="its window is"):
        read_lora(tmp_path / "a.safetensors")


def test_a_fused_layer_of_unknown_size_is_named(tmp_path):
    layer = "transformer.single_transformer_blocks.0.attn.to_q"
    lora = LoraFile("narrow", "diffusers", "flux", None, {layer: change(8, 6)})
    with pytest.raises(ConfigurationError, match="holds 'transformer.single_transformer_blocks.0.proj_mlp' too"):
        write_lora(lora, tmp_path / "a.safetensors", style="comfy")
