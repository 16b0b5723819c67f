"""The experiment for a base and pictures of one's own, measured by CLIP, DINOv2 and a stand-in of ArcFace."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from orthoplex.benchmark import runner
from orthoplex.benchmark.experiment import Choices, load_experiment
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import faces
from orthoplex.models import BaseChoice
from tests.benchmark.conftest import COLOURS, draw_concept
from tests.tiny_vision import build_clip, build_dino

REAL_BASE = Path(__file__).parents[2] / "experiments" / "real-base.toml"
WORDS = {"anna": ("person", "woman"), "rex": ("person", "man"), "boro": ("subject", "dog")}
SMALL = """
common = "{common}"
[training]
steps = 1
batch_size = 1
prior_pictures = 0
erasure_prompts = 2
mixed_precision = "no"
[pictures]
num_images = 1
num_inference_steps = 1
mixed_precision = "no"
"""


class Detector:
    """Takes the mean colour of a picture for its only face."""

    def get(self, img: np.ndarray) -> list[SimpleNamespace]:
        features = np.zeros(512, dtype=np.float32)
        features[:3] = img.reshape(-1, 3).mean(axis=0) + 1
        return [SimpleNamespace(bbox=np.array([0, 0, 9, 9]), normed_embedding=features / np.linalg.norm(features))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rows = [{"name": name, "kind": kind, "class_word": word} for name, (kind, word) in WORDS.items()]
    for name in WORDS:
        draw_concept(root / name, COLOURS[name], count=4)
    (root / "concepts.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"clip": build_clip(root / "clip"), "dino": build_dino(root / "dino")}


def small(folder):
    """The experiment with as little of everything as a pico base needs; its variants are those of the file."""
    text = SMALL.format(common=REAL_BASE)
    for row in tomllib.loads(REAL_BASE.read_text())["variants"]:
        training = {**row.get("training", {}), "rank": 2, "slots": 4}
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in training.items())
        text += f'[[variants]]\nname = "{row["name"]}"\nscale = {row.get("scale", 1.0)}\ntraining = {{ {options} }}\n'
    path = folder / "real-base.toml"
    path.write_text(text)
    return path


def test_one_command_measures_the_papers_beside_ours(run, pico_folder, pictures, models, tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "_load_detector", lambda _: Detector())
    monkeypatch.setattr(faces.metadata, "version", lambda _: "0")
    arguments = ["bench", small(tmp_path), "--base", pico_folder, "--pictures", pictures, "--processes", 1]
    arguments += ["--encoder", f"clip={models['clip']}", "--encoder", f"dino={models['dino']}", "--encoder", "face"]
    arguments += ["--results", tmp_path / "results", "--work", tmp_path / "work"]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "results" / "real-base.md").read_text()
    assert result.output.splitlines()[-1] == str(tmp_path / "results" / "real-base.md")
    assert str(tmp_path) not in page and f"3 concepts on `{pico_folder.name}`" in page
    header, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    assert header == [
        "variant",
        *(f"clip: {measure}" for measure in ("alignment", "text", "recognised", "identity")),
        *(f"dino: {measure}" for measure in ("alignment", "recognised", "identity")),
        *(f"face: {measure}" for measure in ("alignment", "recognised", "identity")),
    ]
    assert [row[0] for row in rows[1:]] == ["orthoplex", "orthogonal-adaptation", "blocklora", "lora"]
    assert all(re.fullmatch(r"-?\d\.\d{3} → -?\d\.\d{3}", cell) for row in rows[1:] for cell in row[1:])
    for kind, names in {"clip": [*WORDS], "dino": [*WORDS], "face": ["anna", "rex"]}.items():
        values = json.loads((tmp_path / "results" / f"real-base-{kind}.json").read_text())
        assert list(dict.fromkeys(row["concept"] for row in values["measurements"])) == names
        of_ours = next(row for row in values["summary"] if row["variant"] == "orthoplex")
        alone, merged = (of_ours[f"{state}_alignment"]["value"] for state in ("single", "merged"))
        column = header.index(f"{kind}: alignment")
        assert rows[1][column] == f"{alone:.3f} → {merged:.3f}"
    assert (tmp_path / "results" / "real-base-clip.jpg").is_file()
    trained = {path.name.rsplit("-", 1)[0] for path in (tmp_path / "work" / "concepts").iterdir()}
    assert trained == {*WORDS}
    assert (
        len([*(tmp_path / "work" / "concepts").glob("*/*.safetensors")]) == 3 * 5
    )  # for all encoders; ours before and after erasure


def test_the_variants_are_the_presets_and_a_plain_lora(pictures):
    experiment = load_experiment(REAL_BASE, Choices(pictures=pictures))
    configs = {
        variant.name: experiment.training_config(variant, experiment.trained[0], 0) for variant in experiment.variants
    }
    presets = {name: config.preset for name, config in configs.items()}
    assert presets == {
        "orthoplex": "orthoplex",
        "orthogonal-adaptation": "orthogonal-adaptation",
        "blocklora": "blocklora",
        "lora": "orthoplex",
    }
    assert [variant.scale for variant in experiment.variants] == [1.0, 0.6, 1.0, 1.0]
    assert [part.name for part in experiment.parts] == ["real-base-clip", "real-base-dino", "real-base-face"]
    assert [part.sheet for part in experiment.parts] == [True, False, False]


def test_encoders_that_read_no_kind_are_left_out_and_said(pictures, tmp_path):
    rows = json.loads((pictures / "concepts.json").read_text())
    (tmp_path / "concepts.json").write_text(json.dumps([row for row in rows if row["kind"] == "subject"]))
    experiment = load_experiment(REAL_BASE, Choices(pictures=tmp_path))
    assert [part.name for part in experiment.parts] == ["real-base-clip", "real-base-dino"]
    face = Choices(pictures=tmp_path, encoders=(EncoderSettings(kind="face"),))
    with pytest.raises(ConfigurationError, match="encoder 'face' measures concepts of kind person; there are none"):
        load_experiment(REAL_BASE, face)


def test_choices_stand_in_the_place_of_what_the_file_says(pictures):
    choices = Choices(BaseChoice("mine"), pictures, (EncoderSettings(kind="dino"),))
    experiment = load_experiment(REAL_BASE, choices)
    assert (experiment.base, experiment.encoder.kind, experiment.parts) == ("mine", "dino", (experiment,))
    assert [source.name for source in experiment.concepts] == [*WORDS]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "clip", "--encoder", "clip"], "2 encoders of kind 'clip'; allowed: 1"),
        (["--encoder", "clip="], "encoder is 'clip='; allowed is KIND or KIND=MODEL, as in clip=models/clip"),
        (["--encoder", "resnet"], "encoder kind is 'resnet'; allowed are 'mobilenet', 'clip', 'dino', 'face'"),
        (["--pictures", "nowhere"], "nowhere/concepts.json cannot be read"),
        (["--variant", "fp16"], "--variant, --base-config and --download are given without --base; allowed with it"),
    ],
)
def test_what_is_given_wrong_is_refused_by_name(run, pictures, arguments, message):
    options = arguments if "--pictures" in arguments else ["--pictures", str(pictures), *arguments]
    result = run("bench", REAL_BASE, *options)
    assert result.exit_code == 2 and message in result.stderr


def test_an_encoder_that_cannot_be_loaded_is_refused_before_training(pico_folder, pictures, models, tmp_path):
    settings = (
        EncoderSettings(kind="clip", model=str(models["clip"])),
        EncoderSettings(kind="dino", model=str(pictures)),
    )
    choices = Choices(BaseChoice(str(pico_folder)), pictures, settings)
    with pytest.raises(ConfigurationError, match=f"encoder model '{pictures}'"):
        next(runner.run(small(tmp_path), results=tmp_path / "results", work=tmp_path / "work", choices=choices))
    assert not (tmp_path / "work" / "concepts").exists()
