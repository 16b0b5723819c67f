"""Bases whose denoiser is quantised: while it is loaded, in its files, or in a GGUF file."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import TorchAoConfig, UNet1DModel, UNet2DConditionModel
from diffusers.loaders.single_file_model import FromOriginalModelMixin
from safetensors.torch import load_file, save_file
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig

from orthoplex.activations import collected_grams, merge_for, merge_to_folder
from orthoplex.concepts import save_concept
from orthoplex.errors import BaseModelError, ConfigurationError, MissingExtraError
from orthoplex.generation import generate
from orthoplex.models import Base, WeightSample, load_base, on_base, plain_weight, quantising
from orthoplex.models.quantising import load_gguf
from orthoplex.models.quiet import quiet
from orthoplex.models.weights import is_quantised, quantisation_of
from tests.pico import linear_layers, make_concept
from tests.quantised import CPU_KINDS, write_gguf

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def stored(pico_folder, tmp_path_factory) -> Path:
    """A folder whose U-Net diffusers quantised and saved itself."""
    folder = tmp_path_factory.mktemp("stored") / "pipeline"
    shutil.copytree(pico_folder, folder)
    with quiet():
        unet = UNet2DConditionModel.from_pretrained(
            folder / "unet", quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), torch_dtype=torch.bfloat16
        )
        shutil.rmtree(folder / "unet")
        unet.save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def gguf_file(pico_folder, tmp_path_factory) -> Path:
    return write_gguf(pico_folder / WEIGHTS, tmp_path_factory.mktemp("gguf") / "unet-Q8_0.gguf")


def picture(base: Base, concept=None, prompt: str = "a photo of a cat") -> torch.Tensor:
    images = generate(base, prompt, merge=concept, num_inference_steps=2, guidance_scale=1.0, expect_names=False)
    return torch.tensor(list(images[0].tobytes())).float()


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_base_that_is_quantised_while_it_is_loaded_draws_with_concepts(pico, pico_folder, kind, caplog):
    base = load_base(pico_folder, quantise=kind)
    linears = {name: layer for name, layer in base.family.every_layer().items() if name.startswith("unet")}
    assert {quantisation_of(layer) for layer in linears.values()} == {"torchao" if "ao" in kind else "bitsandbytes"}
    assert not is_quantised(base.pipeline.text_encoder) and base.identity == pico.identity
    concept = make_concept(base, selection="linear", scale=0.05)
    before = picture(base)
    with_concept = picture(base, concept)
    assert (before - picture(pico)).abs().mean() < (before - with_concept).abs().mean()
    assert (with_concept - picture(pico, concept)).abs().mean() < (before - with_concept).abs().mean()
    assert torch.equal(picture(base), before)
    assert not caplog.records  # the libraries would say at every call how they compute


def test_a_folder_of_diffusers_own_quantised_form_is_loaded(stored, pico, caplog):
    base = load_base(stored)
    assert is_quantised(base.pipeline.unet) and base.identity.hash != pico.identity.hash
    assert load_base(stored, dtype=torch.bfloat16).identity == base.identity
    concept = make_concept(pico, selection="linear")
    trained = with_sample(concept, pico)
    with caplog.at_level(logging.WARNING), base.folded(on_base(trained, base)):
        assert "weights differ by 0.0" in caplog.text
    assert picture(base, on_base(trained, base)).isfinite().all()


def with_sample(concept, base: Base):
    sample = WeightSample.of(base.family.components()).encode()
    return replace(concept, manifest=replace(concept.manifest, base_sample=sample))


def test_a_gguf_file_stands_in_the_place_of_the_denoiser(pico, pico_folder, gguf_file, tmp_path, caplog):
    base = load_base(pico_folder, denoiser=gguf_file)
    layers = linear_layers(base, "attention")
    of_gguf = [name for name, layer in layers.items() if quantisation_of(layer) == "GGUF"]
    assert of_gguf and all(layers[name].in_features % 32 == 0 for name in of_gguf)
    assert base.identity.hash != pico.identity.hash and base.dtype == torch.float32
    plain = pico.family.every_layer()
    error = max(float((plain_weight(layers[name]) - plain[name].weight).abs().max()) for name in of_gguf)
    assert 0 < error < 0.01
    concept = make_concept(base, selection="linear")
    assert (picture(base) - picture(base, concept)).abs().mean() > 0
    other = write_gguf(pico_folder / WEIGHTS, tmp_path / "other.gguf", "Q4_0")
    assert load_base(pico_folder, denoiser=other).identity.hash != base.identity.hash
    copied = shutil.copy(gguf_file, tmp_path / "copy.gguf")
    assert load_base(pico_folder, denoiser=copied, dtype=torch.bfloat16).identity.hash == base.identity.hash


@pytest.mark.parametrize("is_pickle", [False, True])
def test_the_hash_beside_a_gguf_file_is_the_same_for_every_type(pico_folder, gguf_file, tmp_path, is_pickle):
    folder = shutil.copytree(pico_folder, tmp_path / "pipeline")
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(tensors, path)
    if is_pickle:
        torch.save(tensors, path.with_name("pytorch_model.bin"))
        path.unlink()
    bases = [load_base(folder, denoiser=gguf_file, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    assert bases[0].identity == bases[1].identity


def test_the_folder_needs_no_weights_of_a_denoiser_that_a_gguf_file_holds(pico_folder, gguf_file, tmp_path):
    folder = tmp_path / "pipeline"
    shutil.copytree(pico_folder, folder)
    (folder / WEIGHTS).unlink()
    assert is_quantised(load_base(folder, denoiser=gguf_file).pipeline.unet)


def test_merges_that_need_inputs_are_made_on_a_quantised_base(pico_folder):
    base = load_base(pico_folder, quantise="torchao-int8")
    pairs = [(make_concept(base, name, seed=i, text_encoder=True), 1.0) for i, name in enumerate(("anna", "rex"))]
    merged = merge_for(base, pairs, algorithm="least-squares")
    with base.folded(merged), collected_grams(base, list(merged.layers)[:2]) as grams:
        picture(base, prompt="<anna> and <rex>")
    assert all(gram.value(layer).isfinite().all() for layer, gram in grams.items())


@pytest.mark.parametrize(
    ("quantise", "error", "message"),
    [
        (
            "int8",
            ConfigurationError,
            "quantise is 'int8', allowed are bnb-8bit, bnb-4bit, torchao-int8, torchao-int4, ",
        ),
        ("torchao-int4", BaseModelError, "quantise torchao-int4 does not work on device 'cpu' here: .*; others are"),
    ],
)
def test_what_cannot_be_quantised_is_refused(pico_folder, quantise, error, message):
    with pytest.raises(error, match=message):
        load_base(pico_folder, quantise=quantise)


def test_quantised_weights_are_not_quantised_again(stored, pico_folder, gguf_file):
    message = "quantise is 'bnb-4bit', and .* holds quantised weights already; allowed is none"
    with pytest.raises(ConfigurationError, match=message):
        load_base(stored, quantise="bnb-4bit")
    with pytest.raises(ConfigurationError, match=message):
        load_base(pico_folder, denoiser=gguf_file, quantise="bnb-4bit")


@pytest.mark.parametrize("package", ["bitsandbytes", "torchao", "gguf"])
def test_a_missing_package_is_named(pico_folder, gguf_file, monkeypatch, package):
    monkeypatch.setattr(quantising, "find_spec", lambda name: None)
    options = {"denoiser": gguf_file} if package == "gguf" else {"quantise": f"{package[:3]}-8bit"}
    if package == "torchao":
        options = {"quantise": "torchao-int8"}
    elif package == "bitsandbytes":
        options = {"quantise": "bnb-8bit"}
    with pytest.raises(MissingExtraError, match=rf"needs the package {package}, .* 'orthoplex\[quantised\]'"):
        load_base(pico_folder, **options)


def test_files_that_are_no_gguf_are_refused(pico_folder, gguf_file, tmp_path):
    with pytest.raises(BaseModelError, match="denoiser 'nowhere.gguf' is no file; allowed is a GGUF file"):
        load_base(pico_folder, denoiser="nowhere.gguf")
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\x03\x04")
    with pytest.raises(BaseModelError, match=r"begins with b'PK\\x03\\x04', not with b'GGUF'"):
        load_base(pico_folder, denoiser=wrong)
    wrong.write_bytes(gguf_file.read_bytes()[:3000])
    with pytest.raises(BaseModelError, match="cannot be loaded: wrong.gguf cannot be read as a UNet2DConditionModel"):
        load_base(pico_folder, denoiser=wrong)


def test_gguf_files_of_other_networks_are_refused(pico_folder, tmp_path):
    tensors = load_file(pico_folder / WEIGHTS)
    tensors["conv_out.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match=r"a.gguf cannot be read as a UNet2DConditionModel: .*conv_out.bias"):
        load_base(pico_folder, denoiser=write_gguf(tmp_path / "a.safetensors", tmp_path / "a.gguf"))


def test_classes_and_files_that_diffusers_cannot_bring_together_are_refused(pico_folder, gguf_file):
    with pytest.raises(BaseModelError, match="cannot be a UNet1DModel: diffusers reads no GGUF files of this class"):
        load_gguf(UNet1DModel, pico_folder / "unet", gguf_file, torch.float32)
    with pytest.raises(BaseModelError, match="unet-Q8_0.gguf lacks 2 of the tensors of a Half: weight"):
        load_gguf(Half, pico_folder / "unet", gguf_file, torch.float32)


class Half(nn.Linear, FromOriginalModelMixin):
    """A network that a file brings no weights for."""

    @classmethod
    def from_single_file(cls, *files, **options):
        return cls(2, 2, device="meta")


def test_whole_numbers_without_a_quantisation_in_the_configuration_stay_refused(pico_folder, tmp_path):
    folder = tmp_path / "pipeline"
    shutil.copytree(pico_folder, folder)
    tensors = load_file(folder / WEIGHTS)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].to(torch.int8)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(BaseModelError, match="holds whole numbers in the place of weights: conv_in.weight; allowed"):
        load_base(folder)


def test_merges_are_not_written_into_a_quantised_folder(stored, tmp_path):
    concept = tmp_path / "anna.safetensors"
    save_concept(make_concept(load_base(stored)), concept)
    with pytest.raises(BaseModelError, match="base 'pipeline' cannot be saved: its unet is quantised; allowed are"):
        merge_to_folder(stored, [(concept, 1.0)], tmp_path / "merged", algorithm="sum")
    assert not (tmp_path / "merged").exists()
