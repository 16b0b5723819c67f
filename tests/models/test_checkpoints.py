"""Bases out of checkpoint files: the same weights, the same hash, and one line for everything that does not fit."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from orthoplex.errors import BaseModelError
from orthoplex.generation import generate
from orthoplex.models import base_folder, base_report, load_base, loading, training_defaults
from orthoplex.models.base_choice import BaseChoice
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.families.form_of_checkpoints import CHECKPOINTS, checkpoint_class
from tests.checkpoints import stable_diffusion_parts, write_checkpoint
from tests.models.test_hub import put

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."


@pytest.fixture(scope="module")
def whole(shared_pico, tmp_path_factory) -> Path:
    """The pico pipeline as one file."""
    path = tmp_path_factory.mktemp("checkpoints") / "picomix.safetensors"
    return write_checkpoint(path, stable_diffusion_parts(shared_pico.pipeline))


@pytest.fixture
def settings(pico_folder, tmp_path) -> Path:
    """The settings and tokenizers of the pipeline, without weights."""
    return shutil.copytree(pico_folder, tmp_path / "settings", ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def changed(path: Path, target: Path, *, without: str = "-", added: dict[str, torch.Tensor] | None = None) -> Path:
    tensors = {name: values for name, values in load_file(path).items() if not name.startswith(without)}
    save_file(tensors | (added or {}), target)
    return target


def refusal(path, **options) -> str:
    with pytest.raises(BaseModelError) as caught:
        load_base(path, **options)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


@pytest.mark.parametrize("is_open", [False, True])
def test_a_checkpoint_holds_the_base_that_its_folder_does(pico, settings, tmp_path, is_open):
    path = write_checkpoint(tmp_path / "mix.v2.safetensors", stable_diffusion_parts(pico.pipeline, is_open=is_open))
    base = load_base(path, config=settings)
    assert (base.identity.hash, base.identity.name) == (pico.identity.hash, "mix.v2")
    for component in ("unet", "vae", "text_encoder"):
        ours, theirs = (model.pipeline.components[component].state_dict() for model in (base, pico))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert not any(parameter.requires_grad for parameter in base.pipeline.components[component].parameters())
    (ours,), (theirs,) = (generate(model, "a cat", num_inference_steps=2) for model in (base, pico))
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.bfloat16, torch.float16),
    ],
)
def test_the_hash_is_that_of_the_numbers_in_the_file(pico, settings, whole, tmp_path, stored, loaded):
    tensors = {name: values.to(stored) for name, values in load_file(whole).items()}
    save_file(tensors, tmp_path / "half.safetensors")
    base = load_base(tmp_path / "half.safetensors", config=settings, dtype=loaded)
    assert base.dtype == loaded
    exact = pico.identity.hash
    if stored == torch.bfloat16:
        rounded = load_base(tmp_path / "half.safetensors", config=settings)
        exact = rounded.identity.hash
        assert exact != pico.identity.hash
    assert base.identity.hash == exact


def test_a_remembered_hash_is_taken(settings, whole, pico, monkeypatch):
    monkeypatch.setattr("orthoplex.models.hash_cache._RACE_NS", 0)
    assert load_base(whole, config=settings).identity.hash == pico.identity.hash
    monkeypatch.setattr(loading, "_exact_hash", lambda *parts: pytest.fail("hashed again"))
    assert load_base(whole, config=settings).identity.hash == pico.identity.hash


def test_the_file_stays_free_to_change(settings, whole, tmp_path):
    path = shutil.copy(whole, tmp_path / "own.safetensors")
    base = load_base(path, config=settings)
    before = {name: values.clone() for name, values in base.pipeline.unet.state_dict().items()}
    with Path(path).open("r+b") as file:
        file.seek(100_000)
        file.write(bytes(50_000))
    assert all(torch.equal(before[name], values) for name, values in base.pipeline.unet.state_dict().items())


def test_settings_are_looked_for_in_the_cache_of_the_hub(settings, whole, pico, cache):
    assert refusal(whole) == (
        f"base '{whole}' is a checkpoint file of Stable Diffusion, which holds no settings and no tokenizer; give "
        "--base-config FOLDER (config=FOLDER), the pipeline folder of the Stable Diffusion that it was made from, or "
        "let --download fetch those of stable-diffusion-v1-5/stable-diffusion-v1-5 once"
    )
    put(cache, settings, name="somebody/else")
    assert load_base(whole, config="somebody/else").identity.hash == pico.identity.hash
    put(cache, settings, name="stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert load_base(whole).identity.hash == pico.identity.hash
    assert training_defaults(whole) == training_defaults(settings) != {}


@pytest.mark.parametrize("config", ["nowhere", "nobody/nowhere", "unet"])
def test_settings_that_are_not_there_are_refused(settings, whole, cache, monkeypatch, config):
    monkeypatch.chdir(settings)
    with pytest.raises(BaseModelError) as caught:
        load_base(whole, config=config)
    assert str(caught.value) == (
        f"config is '{config}'; allowed is a pipeline folder of Stable Diffusion, or the name of one in the hub's cache"
    )


def test_settings_of_another_family_are_refused(settings, whole, monkeypatch):
    index = settings / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "TinyPipeline"}))
    families = {**base_folder.FAMILIES, "TinyPipeline": object()}
    monkeypatch.setattr(base_folder, "FAMILIES", families)
    assert "are of a TinyPipeline; allowed are those of a StableDiffusionPipeline" in refusal(whole, config=settings)


def test_what_goes_with_files_alone_is_refused(pico_folder, settings, whole):
    line = refusal(pico_folder, config=settings)
    assert line.startswith(f"config is '{settings}' and base '") and line.endswith(
        "no checkpoint file; allowed is none"
    )
    assert "is a checkpoint file; allowed is none" in refusal(whole, config=settings, variant="fp16")


def test_parts_that_a_file_lacks_come_from_the_folder(pico, pico_folder, settings, whole, tmp_path):
    bare = changed(whole, tmp_path / "unet.safetensors", without=VAE)
    bare = changed(bare, bare, without=TEXT)
    assert load_base(bare, config=pico_folder).identity.hash == pico.identity.hash
    assert load_base(bare, config=pico_folder, dtype=torch.bfloat16).identity.hash == pico.identity.hash
    assert refusal(bare, config=settings).endswith(
        f"the file holds unet alone, and the folder of its settings, '{settings}', no weights of vae, text_encoder; "
        "give a pipeline folder that has them as --base-config FOLDER (config=FOLDER)"
    )


@pytest.mark.parametrize(
    ("without", "added", "expected"),
    [
        (f"{UNET}out.2.", {}, "picomix.safetensors lacks 2 of "),
        (f"{TEXT}transformer.text_model.final_layer_norm.", {}, "picomix.safetensors lacks 2 of "),
        (f"{VAE}decoder.conv_out.", {}, "picomix.safetensors lacks 2 of "),
        (
            "-",
            {f"{UNET}out.2.weight": (4, 16, 1, 1)},
            "1 tensors of other shapes: conv_out.weight is (4, 16, 1, 1), al",
        ),
        ("-", {f"{TEXT}transformer.text_model.other.weight": (1,)}, "holds 1 tensors that its text_encoder has not: "),
        ("-", {f"{TEXT}other.weight": (1,)}, "holds 1 tensors that its text_encoder has not: "),
        ("-", {f"{UNET}other.weight": (1,)}, "holds 1 tensors that its unet has not: model.diffusion_model.other.w"),
        ("-", {f"{VAE}other.weight": (1,)}, "holds 1 tensors that its vae has not: "),
        (
            "-",
            {f"{UNET}scaled_fp8": (0,), f"{UNET}out.2.scale_weight": ()},
            "out.2.scale_weight, model.diffusion_model.scaled_fp8; the weights are quantised; allowed are plain ones",
        ),
    ],
)
def test_a_file_that_does_not_fit_its_settings_is_named(settings, whole, tmp_path, without, added, expected):
    tensors = {name: torch.zeros(shape) for name, shape in added.items()}
    path = changed(whole, tmp_path / "picomix.safetensors", without=without, added=tensors)
    assert expected in refusal(path, config=settings)


def test_settings_of_another_size_are_named(settings, whole):
    path = settings / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 32}))
    assert (
        "tensors of other shapes: down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight is (32, 24), al"
        in (refusal(whole, config=settings))
    )


def test_whole_numbers_and_half_files_are_refused(settings, whole, tmp_path):
    number = {f"{UNET}out.2.weight": torch.zeros(4, 16, 3, 3, dtype=torch.int8)}
    path = changed(whole, tmp_path / "quantised.safetensors", added=number)
    assert "quantised.safetensors holds whole numbers in the place of weights: model.diffusion_model.out.2.weight" in (
        refusal(path, config=settings)
    )
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-1000])
    assert "cut.safetensors is damaged: truncated: holds" in refusal(tmp_path / "cut.safetensors", config=settings)


def test_a_file_that_says_so_predicts_v(settings, whole, pico, tmp_path):
    path = changed(whole, tmp_path / "v.safetensors", added={"v_pred": torch.zeros(0)})
    base = load_base(path, config=settings)
    assert base.pipeline.scheduler.config.prediction_type == "v_prediction"
    assert base.family.sampler.prediction_type == "v_prediction" and base.identity.hash == pico.identity.hash


def test_a_file_that_says_so_ends_in_pure_noise(whole, settings, tmp_path):
    scheduler = settings / "scheduler" / "scheduler_config.json"
    index = settings / "model_index.json"

    def use(kind: str) -> None:
        values = json.loads(scheduler.read_text()) | {"_class_name": kind}
        scheduler.write_text(json.dumps(values))
        index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", kind]}))

    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    path = changed(whole, tmp_path / "v.safetensors", added=marks)
    for kind in ("EulerDiscreteScheduler", "DDIMScheduler"):
        use(kind)
        base = load_base(path, config=settings)
        assert base.pipeline.scheduler.alphas_cumprod[-1] < 1e-6
        assert base.pipeline.scheduler.config.timestep_spacing == "trailing"
        assert base.family.schedule.alphas[-1] < 1e-6 and base.family.schedule.prediction_type == "v_prediction"
        assert generate(base, "a cat", num_inference_steps=2)
    only = changed(whole, tmp_path / "only.safetensors", added={"ztsnr": torch.zeros(0)})
    assert refusal(only, config=settings).endswith(
        "the last timestep is pure noise (ztsnr), and its settings predict epsilon, of which no picture follows there; "
        "allowed are settings that predict v_prediction"
    )
    use("PNDMScheduler")
    assert refusal(path, config=settings).endswith(
        "the last timestep is pure noise (ztsnr), which the PNDMScheduler of its settings cannot do; allowed are "
        "settings with a scheduler that can, as EulerDiscreteScheduler or DDIMScheduler"
    )


@pytest.mark.parametrize("names", [("edm_mean", "edm_std"), ("edm_vpred.sigma_max", "edm_vpred.sigma_min")])
def test_a_file_of_another_schedule_is_refused(whole, settings, tmp_path, names):
    path = changed(whole, tmp_path / "edm.safetensors", added={name: torch.ones(4) for name in names})
    assert refusal(path, config=settings) == (
        f"base '{path}' holds {', '.join(names)}: its denoiser was trained on the schedule of EDM, which is not "
        "supported; allowed are files whose denoiser predicts epsilon or v"
    )


def test_the_settings_of_a_file_are_named(whole, settings, caplog):
    with caplog.at_level(logging.INFO, logger="orthoplex"):
        base = load_base(whole, config=settings)
    (line,) = [record.getMessage() for record in caplog.records if "takes the settings" in record.getMessage()]
    predicted = base.family.sampler.prediction_type
    assert line.startswith(f"checkpoint file '{whole}' takes the settings of '{settings}': prediction_type {predicted}")


def test_a_report_and_a_merge_know_the_file(settings, whole):
    choice = BaseChoice(str(whole), config=str(settings))
    report = base_report(choice)
    assert report.problems == () and report.not_read == () and report.version == "sd1"
    sizes = {item.name: item.megabytes for item in report.components}
    assert sizes["unet"] + sizes["vae"] + sizes["text_encoder"] == pytest.approx(whole.stat().st_size / 1e6, rel=0.2)
    assert BaseFiles.of(choice) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (f"{UNET}input_blocks.0.0.weight {UNET}output_blocks.0.0.weight {TEXT}x", "StableDiffusionPipeline"),
        (
            f"{UNET}input_blocks.0.0.weight {UNET}output_blocks.0.0.weight {UNET}label_emb.0.0.weight",
            "StableDiffusionXL",
        ),
        ("double_blocks.0.x vector_in.in_layer.weight img_in.weight", "FluxPipeline"),
        (f"{UNET}double_blocks.0.x {UNET}vector_in.in_layer.weight vae.x text_encoders.t5xxl.x", "FluxPipeline"),
        ("double_blocks.0.x distilled_guidance_layer.in_proj.bias", "ChromaPipeline"),
        ("double_blocks.0.x single_stream_modulation.lin.weight", "Flux2KleinPipeline"),
        ("cap_embedder.0.weight noise_refiner.0.x layers.0.x", "ZImagePipeline"),
        ("txtfusion.projector.weight tmlp.0.weight blocks.0.x", "Krea2Pipeline"),
        ("transformer_blocks.0.x img_in.weight txt_norm.weight", "QwenImagePipeline"),
        ("net.blocks.0.x net.llm_adapter.x", "AnimaModularPipeline"),
        ("first_stage_model.x", None),
        ("text_model.encoder.layers.0.x", None),
        ("", None),
    ],
)
def test_the_family_is_told_by_names_alone(names, expected):
    kind = checkpoint_class(names.split())
    assert (kind or "").startswith(expected or "") and (kind is None) == (expected is None)


def test_no_family_is_shadowed_by_another():
    for kind, form in CHECKPOINTS.items():
        assert checkpoint_class(form.marks) == kind
        assert next(iter(form.parts)) in ("unet", "transformer")
