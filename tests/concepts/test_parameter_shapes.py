"""Convolutions, norms and biases in a concept file: as kohya's programs write them, and back bit for bit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, Concept, load_concept, save_concept
from orthoplex.concepts.exchange import lora_of_concept, read_lora, write_lora
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.concepts.manifest_json import manifest_from_json, manifest_to_json
from orthoplex.concepts.parameter_shapes import parameter_shapes
from orthoplex.errors import ConceptFileError
from orthoplex.files import read_header
from tests.pico import make_manifest

K = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"
POINT = "unet.down_blocks.1.resnets.0.conv_shortcut"
NORM = "unet.conv_norm_out"
BASE = BaseIdentity("vignette", "ab" * 32, "vignette")


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def column(n: int) -> LowRank:
    return LowRank.of_matrix(numbers(n, 1))


def concept(layers: dict[str, LowRank]) -> Concept:
    return Concept(replace(make_manifest(), base=BASE), layers)


LAYERS = {
    K: LowRank(numbers(128, 2), numbers(2, 192)),
    CONV: LowRank(numbers(96, 1), numbers(1, 9 * 96).float()),
    POINT: LowRank(numbers(128, 2), numbers(2, 96)),
    NORM: column(96),
    f"{NORM}.bias": column(96),
    f"{CONV}.bias": column(96),
}


def test_layers_are_written_as_kohya_writes_them(tmp_path):
    path = tmp_path / "a.safetensors"
    manifest = save_concept(concept(LAYERS), path)
    shapes = {name: entry.shape for name, entry in read_header(path).entries.items()}
    flat = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert shapes[f"{flat}.lora_down.weight"] == (2, 96, 3, 3) and shapes[f"{flat}.lora_up.weight"] == (96, 2, 1, 1)
    assert shapes["lora_unet_down_blocks_1_resnets_0_conv_shortcut.lora_down.weight"] == (2, 96, 1, 1)
    vectors = {name for name, shape in shapes.items() if len(shape) == 1}
    assert vectors == {"lora_unet_conv_norm_out.diff", "lora_unet_conv_norm_out.diff_b", f"{flat}.diff_b"}
    assert torch.equal(load_file(path)["lora_unet_conv_norm_out.diff"], LAYERS[NORM].up[:, 0].float())
    assert manifest.shapes == parameter_shapes(LAYERS, "vignette") and manifest.layers[CONV] == (96, 1, 9 * 96)
    again = load_concept(path)
    assert again.layers.keys() == LAYERS.keys() and again.content_hash == concept(LAYERS).content_hash
    save_concept(again, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_other_programs_read_the_same_changes(tmp_path):
    save_concept(concept(LAYERS), tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    write_lora(lora_of_concept(concept(LAYERS)), tmp_path / "b.safetensors", style="kohya")
    other = load_file(tmp_path / "b.safetensors")
    assert {name: tuple(each.shape) for name, each in tensors.items()} == {
        name: tuple(each.shape) for name, each in other.items()
    }
    assert all(torch.equal(each.float(), other[name].float()) for name, each in tensors.items())
    lora = read_lora(tmp_path / "b.safetensors")
    assert lora.differences.keys() == {f"{NORM}.weight", f"{NORM}.bias", f"{CONV}.bias"}
    own = foreign_concept(lora, BASE)
    assert own.layers.keys() == LAYERS.keys()
    assert all(torch.equal(own.layers[layer].delta(), LAYERS[layer].delta().float()) for layer in LAYERS)


def test_a_norm_of_several_factors_becomes_a_column(tmp_path):
    doubled = LowRank(LAYERS[NORM].up, LAYERS[NORM].down * 2)
    save_concept(concept({NORM: LowRank.stack([doubled, LAYERS[NORM]])}), tmp_path / "a.safetensors")
    change = load_concept(tmp_path / "a.safetensors").layers[NORM]
    assert change.down.tolist() == [[1]]
    torch.testing.assert_close(change.up.float(), 3 * LAYERS[NORM].up.float(), rtol=1e-3, atol=1e-3)


def test_a_base_of_other_sizes_has_the_windows_of_its_family():
    narrow = {CONV: LowRank(numbers(20, 1), numbers(1, 9 * 20)), NORM: column(20), K: LAYERS[K]}
    assert parameter_shapes(narrow, "vignette") == {CONV: (20, 20, 3, 3), NORM: (20,)}
    assert parameter_shapes(narrow, "unheard-of") == {}
    assert parameter_shapes({CONV: LowRank(numbers(20, 1), numbers(1, 20))}, "vignette") == {}


def test_files_without_such_layers_say_nothing_of_shapes():
    text = manifest_to_json(replace(make_manifest(), layers={K: (2, 1, 3)}))
    assert "shapes" not in text and manifest_from_json(text, source="a").shapes == {}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({CONV: (96, 96, 3, 2)}, r"manifest field 'shapes.unet.down_blocks.0.resnets.0.conv1' is \[96, 96, 3, 2\]"),
        ({CONV: (96,)}, r"beside \[out, rank, in\] \[96, 1, 864\], allowed are"),
        ({K: (96, 1)}, r"'shapes.unet.*to_k' is \[96, 1\] beside \[out, rank, in\] \[0, 0, 0\]"),
        ({CONV: ("a",)}, "manifest field 'shapes"),
    ],
)
def test_shapes_that_are_not_those_of_the_layers_are_refused(shapes, words):
    text = manifest_to_json(replace(make_manifest(), layers={CONV: (96, 1, 864)}, shapes=shapes))
    with pytest.raises(ConceptFileError, match=words):
        manifest_from_json(text, source="a")
    assert '"needs":["parameter-shapes"]' in text
