"""FLUX.2 Klein on a pico pipeline of its exact classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline

from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from tests.pico_qwen import LENGTH, build_klein


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_klein(tmp_path_factory.mktemp("klein") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Flux2KleinPipeline:
    """The pipeline of diffusers."""
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_picture(pipeline: Flux2KleinPipeline, prompt: str, seed: int, **options: Any) -> np.ndarray:
    noise = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(seed))
    sizes = {"height": 32, "width": 32, "max_sequence_length": LENGTH, "num_inference_steps": 3}
    made = pipeline(prompt=prompt, latents=noise, output_type="np", **sizes, **options)
    return (made.images[0] * 255).round()


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_generate(base, pipeline, scale):
    """Pictures are those of diffusers' pipeline, but for rounding: its latents lie in memory as tokens."""
    ours = generate(base, "a red cat", seed=3, num_images=2, num_inference_steps=3, guidance_scale=scale)
    for seed, picture in zip((3, 4), ours, strict=True):
        theirs = own_picture(pipeline, "a red cat", seed, guidance_scale=scale)
        assert np.abs(np.asarray(picture) - theirs).max() <= 1


def test_latents_are_those_of_the_pipeline(base, pipeline):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = torch.cat([pipeline._encode_vae_image(image[None], torch.Generator()) for image in pixels])
    latents = base.family.latents(pixels)
    assert latents.shape == (2, *base.family.latent_shape) and base.family.latent_shape == (16, 4, 4)
    torch.testing.assert_close(latents, theirs.detach(), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert base.family.pixels(latents).shape == pixels.shape


def test_a_distilled_base_follows_no_guidance(tmp_path):
    base = load_base(build_klein(tmp_path / "klein", distilled=True))
    weak, strong = (generate(base, "a cat", num_inference_steps=2, guidance_scale=scale)[0] for scale in (1.0, 9.0))
    assert np.array_equal(np.asarray(weak), np.asarray(strong))
    with pytest.raises(ConfigurationError, match="guidance is trained into it; allowed is none"):
        generate(base, "a cat", negative_prompt="a dog", num_inference_steps=2)
    again = load_base(base.save(tmp_path / "again"))
    assert again.pipeline.config.is_distilled


def test_a_negative_prompt_leads_away(base):
    plain, away = (
        np.asarray(generate(base, "a cat", negative_prompt=text, num_inference_steps=2)[0])
        for text in ("", "a red dog")
    )
    assert not np.array_equal(plain, away)


@pytest.mark.parametrize(("width", "version"), [(48, "flux2-klein-4b"), (12288, "flux2-klein-9b")])
def test_the_version_is_that_of_its_width(base, width, version):
    config = {**base.pipeline.transformer.config, "joint_attention_dim": width}
    stand_in = type("P", (), {"transformer": type("T", (), {"config": type("C", (), config)})})
    assert base.family.version(stand_in) == version


def test_prompts_that_are_not_read(base):
    with pytest.raises(PromptError, match="has weights or BREAK, which base 'pipeline' does not read"):
        generate(base, "a (red:1.3) cat", num_inference_steps=1)


@pytest.mark.parametrize(
    ("component", "setting", "value", "message"),
    [
        (
            "transformer",
            "",
            "FluxTransformer2DModel",
            "transformer is a FluxTransformer2DModel, allowed are Flux2Trans",
        ),
        ("scheduler", "num_train_timesteps", 500, "scheduler num_train_timesteps is 500; allowed is 1000"),
    ],
)
def test_folders_whose_parts_do_not_fit(folder, tmp_path, component, setting, value, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / component / "scheduler_config.json" if setting else copy / "model_index.json"
    values = json.loads(path.read_text())
    values |= {setting: value} if setting else {component: ["diffusers", value]}
    path.write_text(json.dumps(values))
    with pytest.raises(BaseModelError, match=message):
        load_base(copy)
