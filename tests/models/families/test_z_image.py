"""Z-Image on a pico pipeline of its exact classes; what it shares with FLUX.2 Klein is in test_chat_templates.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImagePipeline
from diffusers.configuration_utils import FrozenDict
from transformers import Qwen3ForCausalLM

from orthoplex.errors import BaseModelError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.z_image import ZImage
from tests.pico_qwen import LENGTH, build_z_image

LONG = "a photo of a dog in a forest at night by day with a red car and a blue cat on a beach"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_z_image(tmp_path_factory.mktemp("z_image") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.mark.parametrize("texts", [("a red cat", "a blue dog at night"), (LONG, "a dog"), ("a dog", LONG)])
def test_negative_prompts(base, folder, texts):
    """But for rounding, as diffusers predicts both texts in one batch, in which the shorter is filled up and masked."""
    prompt, negative = texts
    options: dict[str, Any] = {"negative_prompt": negative, "guidance_scale": 2.0, "num_inference_steps": 3}
    (ours,) = generate(base, prompt, seed=3, **options)
    pipeline = ZImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    (theirs,) = pipeline(
        prompt,
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)),
        height=32,
        width=32,
        max_sequence_length=LENGTH,
        output_type="np",
        **options,
    ).images
    assert np.abs(np.asarray(ours) - (theirs * 255).round()).max() <= 1
    plain = generate(base, prompt, seed=3, num_inference_steps=3, guidance_scale=2.0)[0]
    assert not np.array_equal(np.asarray(ours), np.asarray(plain))


def test_guidance(base):
    family = base.family
    with_text, without = torch.tensor([2.0]), torch.tensor([0.5])
    assert family.combination.of(with_text, without, 3.0).tolist() == [2.0 + 3.0 * 1.5]
    assert (family.guidance, family.least_guidance) == ("second prediction", 0.0)


def test_velocity(base):
    """The transformer's time runs from noise to picture, and its output is the negative velocity."""
    family, noisy = base.family, torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = family.condition(["a cat"])
        velocity = family.predict(noisy, torch.tensor(250.0), text)
        own = family.pipeline.transformer([noisy[0, :, None]], torch.tensor([0.75]), [text.features[0, text.mask[0]]])
    assert torch.equal(velocity, -own.sample[0][None, :, 0])


def test_positions_without_text_are_left_out(base):
    with torch.no_grad():
        text = base.family.condition(["a cat", "a photo of a dog"])
    assert text.features.shape == (2, LENGTH, 16) and text.mask.shape == (2, LENGTH)
    marks = base.family.words.ids(["a cat"])[0, text.mask[0]]
    assert base.pipeline.tokenizer.decode(marks) == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"


def test_a_language_model_with_a_head(base, folder, tmp_path):
    """Folders name either class; the states are those of the model below the head."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    network = Qwen3ForCausalLM(base.pipeline.text_encoder.config)
    network.model.load_state_dict(base.pipeline.text_encoder.state_dict())
    shutil.rmtree(copy / "text_encoder")
    network.save_pretrained(copy / "text_encoder")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "text_encoder": ["transformers", "Qwen3ForCausalLM"]}))
    other = load_base(copy)
    assert torch.equal(other.family.condition(["a cat"]).features, base.family.condition(["a cat"]).features)
    assert other.identity.hash == base.identity.hash


def test_what_layers_see(base):
    sees = {name.removeprefix("transformer."): layer.sees for name, layer in base.family.layers("linear").items()}
    assert (sees["noise_refiner.0.attention.to_q"], sees["layers.0.feed_forward.w1"]) == ("picture", "both")
    assert not any("adaLN" in name or "embedder" in name or "final" in name for name in sees)
    assert base.family.table.sees("transformer.cap_embedder.1") == "text"


@pytest.mark.parametrize(
    ("component", "values", "message"),
    [
        ("vae", {"scaling_factor": 0}, "vae scaling_factor is 0; allowed is a number other than 0"),
        ("transformer", {"in_channels": 8}, "transformer in_channels is 8; allowed is 4, of the vae's latents"),
        ("transformer", {"cap_feat_dim": 8}, "transformer cap_feat_dim is 8; allowed is 16, of text_encoder"),
        (
            "transformer",
            {"all_patch_size": [4]},
            r"transformer all_patch_size is \[4\] with all_f_patch_size \[1\]; allowed are those with 2, and 1 at",
        ),
    ],
)
def test_networks_that_do_not_fit(base, monkeypatch, component, values, message):
    network = base.pipeline.components[component]
    monkeypatch.setattr(network, "_internal_dict", FrozenDict({**network.config, **values}))
    with pytest.raises(BaseModelError, match=message):
        ZImage.check(base.pipeline)
