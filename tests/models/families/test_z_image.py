"""Z-Image on a pico pipeline of its exact classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImagePipeline

from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from tests.pico_qwen import LENGTH, build_z_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_z_image(tmp_path_factory.mktemp("z") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> ZImagePipeline:
    """The pipeline of diffusers."""
    pipeline = ZImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_picture(pipeline: ZImagePipeline, prompt: str, seed: int, **options: Any) -> np.ndarray:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    sizes = {"height": 32, "width": 32, "max_sequence_length": LENGTH, "num_inference_steps": 3}
    made = pipeline(prompt, latents=noise, output_type="np", **sizes, **options)
    return (made.images[0] * 255).round()


@pytest.mark.parametrize(("scale", "negative"), [(0.0, ""), (1.0, ""), (3.0, "a blue dog at night")])
def test_generate(base, pipeline, scale, negative):
    """Pictures are those of diffusers' pipeline; with guidance it runs both texts in one batch, so that they round."""
    options = {"num_inference_steps": 3, "guidance_scale": scale, "negative_prompt": negative}
    ours = generate(base, "a red cat", seed=3, num_images=2, **options)
    for seed, picture in zip((3, 4), ours, strict=True):
        theirs = own_picture(pipeline, "a red cat", seed, guidance_scale=scale, negative_prompt=negative)
        assert np.abs(np.asarray(picture) - theirs).max() <= (1 if scale else 0)


def test_filling_is_not_seen(base):
    """Prompts of different lengths in one batch give what each gives alone."""
    family, noise = base.family, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([300.0, 800.0])
    with torch.no_grad():
        both = family.condition(["a cat", "a photo of a dog in a forest at night"])
        together = family.predict(noise, times, both)
        for place in range(2):
            alone = family.predict(noise[place : place + 1], times[place], both.take(torch.tensor([place])))
            torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-5)
    assert both.features.shape[1] == LENGTH and both.mask.sum(1).tolist()[0] < both.mask.sum(1).tolist()[1]


def test_the_velocity_points_from_pictures_to_noise(base):
    """The transformer's own output has the other sign, and counts times backwards."""
    family, noise = base.family, torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = family.condition(["a cat"])
        words = [given.features[0][given.mask[0]]]
        own = base.pipeline.transformer([noise[0].unsqueeze(1)], torch.tensor([0.25]), words, return_dict=False)[0][0]
        torch.testing.assert_close(family.predict(noise, torch.tensor(750.0), given)[0], -own.squeeze(1))


def test_the_template_is_no_word(base):
    words, ids = base.family.words, base.family.words.ids(["a cat", "a red cat"])
    assert (~words.filling(ids)).sum(1).tolist() == [2, 3]
    assert words.room("a red cat").length == 3 and words.room("").length == 0
    assert words.room("a").limit == LENGTH - base.family.readers[0].num_marks
    assert base.tokens == ()  # <think> is none


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a (red:1.3) cat", "has weights or BREAK, which base 'pipeline' does not read"),
        ("cat " * 60, "tokens, base 'pipeline' reads at most"),
    ],
)
def test_prompts_that_are_not_read(base, prompt, message):
    with pytest.raises(PromptError, match=message):
        generate(base, prompt, num_inference_steps=1)


def test_layers_that_see_the_text_alone_are_refused(base):
    with pytest.raises(ConfigurationError, match="has no layers 'cross-attention-kv', allowed are attention, linear"):
        base.family.layers("cross-attention-kv")


@pytest.mark.parametrize(
    ("component", "setting", "value", "message"),
    [
        ("text_encoder", "", "T5EncoderModel", "text_encoder is a T5EncoderModel, allowed are Qwen3Model"),
        ("scheduler", "num_train_timesteps", 500, "scheduler num_train_timesteps is 500; allowed is 1000"),
        ("vae", "scaling_factor", 0, "vae scaling_factor is 0; allowed is a number other than 0"),
    ],
)
def test_folders_whose_parts_do_not_fit(folder, tmp_path, component, setting, value, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    path = copy / component / name if setting else copy / "model_index.json"
    values = json.loads(path.read_text())
    values |= {setting: value} if setting else {component: ["transformers", value]}
    path.write_text(json.dumps(values))
    with pytest.raises(BaseModelError, match=message):
        load_base(copy)
