"""Loading bases: what is accepted, what is refused, and the identity."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.models import base_place, load_base
from orthoplex.models.families import parts, stable_diffusion_folder
from orthoplex.models.identity import weights_hash
from tests.pico import build_pico, tokens_of


def test_a_folder_is_loaded_frozen_and_silent(pico_folder, capfd):
    base = load_base(pico_folder)
    assert base.dtype == torch.float32 and base.device == torch.device("cpu")
    assert base.identity.family == "sd1" and base.identity.name == "pipeline" and len(base.identity.hash) == 64
    assert set(base.family.components()) == {"unet", "text_encoder"}
    for module in base.family.components().values():
        assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    assert base.pipeline.safety_checker is None
    base.pipeline("a photo", num_inference_steps=1)
    written = capfd.readouterr()
    assert written.out == "" and written.err == ""


@pytest.mark.parametrize(("prediction", "family"), [("epsilon", "sd2"), ("v_prediction", "sd2-v")])
def test_stable_diffusion_2_is_told_from_version_1(pico_folder, prediction, family, monkeypatch):
    monkeypatch.setattr(
        stable_diffusion_folder, "_WIDTH_OF_SD2", load_base(pico_folder).pipeline.unet.config.cross_attention_dim
    )
    whole = parts.load_part

    def predicting(index, part, folder):
        loaded = whole(index, part, folder)
        if part == "scheduler":
            loaded.register_to_config(prediction_type=prediction)
        return loaded

    monkeypatch.setattr(parts, "load_part", predicting)
    assert load_base(pico_folder).identity.family == family


def test_the_libraries_may_speak_again_afterwards(pico_folder):
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    load_base(str(pico_folder))
    assert (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()) == before
    assert diffusers_logging.is_progress_bar_enabled() and transformers_logging.is_progress_bar_enabled()


def test_vignette_is_found_by_name(pico_folder, monkeypatch):
    monkeypatch.setattr(base_place.vignette, "folder", lambda: pico_folder)
    identity = load_base("vignette").identity
    assert (identity.family, identity.name) == ("vignette", "vignette")
    assert identity.hash == load_base(pico_folder).identity.hash


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(BaseModelError, match="base '.*/nowhere' is no folder, allowed are 'vignette', pipeline fold"):
        load_base(tmp_path / "nowhere")


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(BaseModelError, match=r"is no pipeline folder: no class name in model_index.json"):
        load_base(tmp_path)
    for text in ("[]", "[" * 99999):
        (tmp_path / "model_index.json").write_text(text)
        with pytest.raises(BaseModelError, match="is no pipeline folder"):
            load_base(tmp_path)
    with pytest.raises(BaseModelError, match="base '' is no folder"):
        load_base("")


def test_another_pipeline_class_is_refused_with_the_list(tmp_path):
    for name in ("MusicPipeline", ["x"]):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(BaseModelError, match=r"is a .*(Music|x).*, supported are .*StableDiffusionPipeline"):
            load_base(tmp_path)


@pytest.fixture
def damaged(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may damage."""
    return shutil.copytree(pico_folder, tmp_path / "damaged")


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_damaged_weights_are_refused_by_name(damaged, name):
    weights = damaged / name
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match=f"base '.*/damaged' cannot be loaded: {name} is damaged: "):
        load_base(damaged)


def test_a_wrong_type_in_a_part_is_refused(damaged):
    config = damaged / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_train_timesteps": "many"}))
    with pytest.raises(
        BaseModelError, match="base '.*/damaged' cannot be loaded: scheduler cannot be read: TypeError: linspace"
    ):
        load_base(damaged)


def test_the_names_of_the_first_autoencoders_are_read(damaged, pico):
    path = damaged / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for name in [name for name in tensors if ".attentions." in name]:
        part = next((part for part in older if f".{part}." in name), None)
        if part is not None:
            tensors[name.replace(f".{part}.", f".{older[part]}.")] = tensors.pop(name)
    save_file(tensors, path, metadata={"format": "pt"})
    found = load_base(damaged).pipeline.vae.state_dict()
    assert all(torch.equal(found[name], values) for name, values in pico.pipeline.vae.state_dict().items())


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused_by_name(pico_folder, device):
    with pytest.raises(BaseModelError, match=f"device is '{device}', allowed are cpu"):
        load_base(pico_folder, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_hash_does_not_depend_on_the_dtype_loaded(pico_folder, pico, dtype):
    base = load_base(pico_folder, dtype=dtype)
    assert base.dtype == dtype
    assert base.identity == pico.identity


def test_the_hash_of_weights_stored_in_float16_is_the_same(pico_folder, pico, tmp_path):
    half = load_base(pico_folder, dtype=torch.float16)
    half.save(tmp_path / "half")
    assert load_base(tmp_path / "half", dtype=torch.float32).identity.hash == pico.identity.hash


def test_the_hash_sees_other_weights_and_one_changed_number(pico_folder, pico, tmp_path):
    other = load_base(build_pico(tmp_path / "other", seed=1))
    assert other.identity.hash != pico.identity.hash
    base = load_base(pico_folder)
    assert weights_hash(base.family.components()) == pico.identity.hash
    next(base.pipeline.unet.parameters())[0, 0, 0, 0] += 0.1
    assert weights_hash(base.family.components()) != pico.identity.hash


def test_the_hash_does_not_see_added_tokens_nor_the_inner_text_model_name(pico):
    with pico.with_tokens(tokens_of({"<anna>": torch.zeros(24)})):
        assert weights_hash(pico.family.components()) == pico.identity.hash
    linear = nn.Linear(2, 2)
    outer, middle = nn.Module(), nn.Module()
    middle.add_module("layer", linear)
    outer.add_module("text_model", middle)
    assert weights_hash({"text_encoder": outer}) == weights_hash({"text_encoder": middle})


def test_the_hash_of_twenty_million_parameters_is_quick():
    modules = {"unet": nn.ModuleList(nn.Linear(1000, 1000, bias=False) for _ in range(20))}
    weights_hash(modules)
    start = time.process_time()
    weights_hash(modules)
    assert time.process_time() - start < 0.6
