"""Pictures to concepts to a merge to pictures, on a pico pipeline: through Python and through the command line."""

import json
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner

from orthoplex.activations import merge_for
from orthoplex.adapters import METHODS
from orthoplex.cli import app
from orthoplex.concepts import load_concept
from orthoplex.generation import generate, picture_recipe, read_recipe, save_png
from orthoplex.models import Base, load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train
from tests.pico import METHOD_OPTIONS, tokens_of

CONFIG = TrainingConfig(
    steps=5,
    batch_size=2,
    slots=4,
    learning_rate=0.05,
    warmup=1,
    erasure=0.5,
    erasure_prompts=4,
    prior_pictures=2,
    prior_inference_steps=1,
    sample_every=5,
    num_inference_steps=1,
)
CONCEPTS = (("anna", "person", "person"), ("forest", "place", "scene"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures of every concept, with a caption here and there."""
    random = np.random.default_rng(1)
    made = {}
    for name, class_word, _ in CONCEPTS:
        folder = tmp_path_factory.mktemp("pictures") / name
        folder.mkdir()
        for number in range(3):
            pixels = random.integers(0, 255, (40, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / "0.txt").write_text(f"a photo of a {class_word} at night")
        made[name] = folder
    return made


@pytest.fixture(scope="module")
def base(pico_folder: Path) -> Base:
    return load_base(pico_folder)


def dataset_of(base, folders, name, class_word, kind):
    return ConceptDataset.from_folder(
        folders[name], resolution=base.family.resolution, token=f"<{name}>", class_word=class_word, kind=kind
    )


@pytest.mark.parametrize("method", METHODS)
def test_python(base, folders, tmp_path, method):
    loaded = []
    for slot, (name, class_word, kind) in enumerate(CONCEPTS):
        output = tmp_path / f"{name}.safetensors"
        config = replace(CONFIG, method=method, slot=slot, **METHOD_OPTIONS.get(method, {}))
        dataset = dataset_of(base, folders, name, class_word, kind)
        with closing(train(base, dataset, config, output=output)) as records:
            begun = list(islice(records, 3))
        assert begun[0].images and begun[-1].step == 2 and not output.exists()
        *_, last = train(base, dataset, config, output=output, resume=True)
        assert (last.step, last.output) == (5, output) and last.images
        loaded.append((load_concept(output, base=base.identity), 1.0))
    together = merge_for(base, loaded)
    prompt = "a photo of <anna> person in <forest> place"
    plain = generate(base, "a photo of person in place", num_inference_steps=2)[0]
    images = generate(base, prompt, merge=together, num_images=2, num_inference_steps=2)
    again = generate(base, prompt, merge=together, num_images=2, num_inference_steps=2)
    assert [image.size for image in images] == [(32, 32)] * 2
    assert np.array_equal(np.asarray(images[0]), np.asarray(again[0]))
    assert not np.array_equal(np.asarray(images[0]), np.asarray(plain))
    path = tmp_path / "out.png"
    save_png(images[0], path, picture_recipe(prompt, base=base, merge=together))
    assert [item["name"] for item in read_recipe(path)["merge"]["concepts"]] == ["anna", "forest"]


def test_command_line(folders, pico_folder, tmp_path):
    runner = CliRunner()

    def run(*arguments):
        result = runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    config = tmp_path / "quick.toml"
    config.write_text(
        "steps = 5\nbatch_size = 2\nslots = 4\nerasure_prompts = 4\nprior_pictures = 0\nlayers = 'attention'\n"
        "erasure_form = 'activation'\n"
    )
    for slot, (name, class_word, kind) in enumerate(CONCEPTS):
        run(
            *("train", folders[name], "--name", name, "--class-word", class_word, "--kind", kind),
            *("--base", pico_folder, "--config", config, "--slot", slot, "--erasure", 0.5),
            *("--output", tmp_path / f"{name}.safetensors"),
        )
    files = [tmp_path / "anna.safetensors", f"{tmp_path / 'forest'}@0.8"]
    assert json.loads(run("inspect", files[0], "--json"))["slot"] == 0
    run("merge", *files, "--output", tmp_path / "merged", "--base", pico_folder)
    picture = ("generate", "<anna> person in <forest> place", "--steps", 2)
    run(*picture, "--base", tmp_path / "merged", "--output", tmp_path / "merged.png")
    run(
        *(*picture, "--base", pico_folder, "--concept", files[0], "--concept", files[1]),
        *("--output", tmp_path / "folded.png"),
    )
    merged, folded = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("merged", "folded"))
    assert np.abs(merged - folded).max() <= 1
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "merged", safety_checker=None)
    assert "<anna>" in pipeline.tokenizer.get_added_vocab()


@pytest.mark.parametrize("prompt", ["a photo of <anna> person", "<anna>"])
def test_training_and_generation_read_a_prompt_alike(base, folders, monkeypatch, prompt):
    dim = base.pipeline.text_encoder.config.hidden_size
    seen = []
    embedding = base.pipeline.text_encoder.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    try:
        with base.with_tokens(tokens_of({"<anna>": torch.ones(dim), "<anna>_1": torch.zeros(dim)})):
            generate(base, prompt, num_inference_steps=1)
            trained = base.family.words.ids([prompt])
    finally:
        handle.remove()
    assert any(torch.equal(ids[-1:], trained) or torch.equal(ids[:1], trained) for ids in seen)
