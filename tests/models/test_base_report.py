"""The report on a base: what it is made of, what it can do, what is wrong; also of one that cannot be loaded."""

import json
import shutil

import pytest
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from orthoplex.models import load_base
from orthoplex.models.families.stable_diffusion import StableDiffusion
from orthoplex.models.report import base_report
from tests.pico import make_concept


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


DAMAGES = {
    "unet": lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
    "vae": lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"xy"),
    "text_encoder": lambda folder: (folder / "text_encoder" / "config.json").unlink(),
    "tokenizer": lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(),
    "scheduler": lambda folder: shutil.rmtree(folder / "scheduler"),
}
CONTENTS = {
    "tokenizer": lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{}"),
    "scheduler": lambda folder: change(folder / "scheduler" / "scheduler_config.json", num_train_timesteps="many"),
    "vae": lambda folder: cut(folder / "vae" / "diffusion_pytorch_model.safetensors"),
    "text_encoder": lambda folder: cut(folder / "text_encoder" / "model.safetensors"),
    "unet": lambda folder: cut(folder / "unet" / "diffusion_pytorch_model.safetensors"),
}
SETTINGS = {
    "vae": lambda folder: change(folder / "vae" / "config.json", scaling_factor=0),
    "unet": lambda folder: change(folder / "unet" / "config.json", sample_size=0),
    "tokenizer": lambda folder: change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=77),
    "scheduler": lambda folder: change(folder / "scheduler" / "scheduler_config.json", prediction_type="flow"),
}


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path):
    """Drop a weight of a file."""
    tensors = load_file(path)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kinds", [DAMAGES, CONTENTS, SETTINGS], ids=["files", "contents", "settings"])
def test_everything_that_is_wrong_has_a_line(folder, kinds):
    for damage in kinds.values():
        damage(folder)
    problems = base_report(folder).problems
    assert len(problems) == len(kinds) and all(line.startswith(f"base '{folder}'") for line in problems)
    assert all(any(part in line.replace(str(folder), "") for line in problems) for part in kinds), problems


def test_the_family_says_which_parts_are_read(folder, monkeypatch):
    """So that the second tokenizer of a family with two text encoders is read."""
    assert StableDiffusion.parts() == ("vae", "text_encoder", "unet", "tokenizer", "scheduler")
    monkeypatch.setattr(StableDiffusion, "tokenizers", ("tokenizer", "tokenizer_2"))
    assert StableDiffusion.parts()[3:] == ("tokenizer", "tokenizer_2", "scheduler")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    assert "tokenizer_2/" not in base_report(folder).not_read


def test_a_merged_folder_names_its_concepts(pico, tmp_path):
    with pico.folded(make_concept(pico, "anna", num_vectors=2)):
        pico.save(tmp_path / "merged")
    report = base_report(tmp_path / "merged")
    assert report.concepts == ("anna",) and "concepts in it: <anna>" in report.lines()
    assert report.to_json()["concepts"] == ["anna"]
