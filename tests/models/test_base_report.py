"""The report on a base: what it is made of, what it can do, what is wrong; also of one that cannot be loaded."""

import json
import shutil

import pytest
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from orthoplex.models import load_base
from orthoplex.models.report import base_report


@pytest.fixture
def folder(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may change."""
    return shutil.copytree(pico_folder, tmp_path / "base")


def test_a_report_in_lines_and_in_json(folder, pico):
    (folder / "safety_checker").mkdir()
    (folder / "sd15.ckpt").touch()
    (folder / "unet" / "diffusion_pytorch_model.bin").touch()
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: values.half() for name, values in load_file(path).items()}, path, metadata={"format": "pt"})
    report = base_report(folder)
    size = sum(path.stat().st_size for path in (folder / "unet").glob("*.safetensors")) / 1e6
    assert list(report.lines()) == [
        f"base {folder}: sd1, hash {pico.identity.hash[:16]}",
        f"vae: AutoencoderKL, float16, {path.stat().st_size / 1e6:.1f} MB",
        "text_encoder: CLIPTextModel, float32, 0.1 MB",
        f"unet: UNet2DConditionModel, float32, {size:.1f} MB",
        "tokenizer: CLIPTokenizer",
        "scheduler: DDIMScheduler",
        "inference steps: 1 to 1000, by DDIMScheduler",
        "prediction: epsilon",
        "prompts: up to 30 tokens",
        "pictures: 32 x 32 pixels",
        "training defaults of its family: num_inference_steps = 30, guidance_scale = 7.5",
        "not read: safety_checker/, sd15.ckpt, unet/diffusion_pytorch_model.bin",
    ]
    values = report.to_json()
    assert json.loads(json.dumps(values)) == values
    assert values["scheduler"] == {
        "kind": "DDIMScheduler",
        "prediction_type": "epsilon",
        "lowest_steps": 1,
        "highest_steps": 1000,
    }
    assert values["problems"] == [] and values["hash"] == pico.identity.hash


def test_a_base_that_cannot_be_loaded_has_problems(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": [8, 16]}))
    report = base_report(folder)
    assert [item.name for item in report.components] == ["vae", "text_encoder", "unet", "tokenizer", "scheduler"]
    assert report.hash is None and report.scheduler is None
    *_, last = report.lines()
    assert last.startswith(f"problem: base '{folder}': unet sample_size is [8, 16]; allowed is")


@pytest.mark.parametrize("given", ["nowhere", "runwayml/stable-diffusion-v1-5", ""])
def test_what_is_no_base_has_one_problem(given):
    report = base_report(given)
    (problem,) = report.problems
    assert problem.startswith(f"base '{given}' is no folder") and list(report.lines()) == [
        f"base {given}",
        f"problem: {problem}",
    ]


@pytest.mark.parametrize("entry", [None, "UNet", [1, 2], {}])
def test_parts_that_are_not_named_are_reported(folder, entry):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unet": entry}))
    shutil.rmtree(folder / "unet")
    report = base_report(folder)
    assert {item.name: item.kind for item in report.components}["unet"] == "none" and len(report.problems) == 1


def test_a_base_for_pictures_alone_says_that_it_cannot_be_trained(folder):
    DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "scheduler")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_betas": [0.01] * 99 + [1.0]}))
    report = base_report(folder)
    assert report.hash is not None
    (problem,) = report.problems
    assert problem.startswith("no training: scheduler has zero terminal SNR and predicts 'epsilon'")


@pytest.mark.slow
def test_the_embedded_base_is_whole():
    report = base_report("vignette")
    assert report.version == "vignette" and report.problems == () and report.not_read == ()
    assert report.training_defaults == {} and report.resolution == load_base("vignette").family.resolution
