"""Qwen-Image on a pico pipeline of its exact classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline
from safetensors.torch import save_file

from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.errors import BaseModelError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.packing import packed
from tests.pico import tokens_of
from tests.pico_qwen_image import LENGTH, build_qwen_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen_image(tmp_path_factory.mktemp("qwen") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> QwenImagePipeline:
    """The pipeline of diffusers."""
    pipeline = QwenImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_pictures(pipeline: QwenImagePipeline, *seeds: int, **options: Any) -> np.ndarray:
    """The pictures of diffusers' pipeline, from noise of these seeds."""
    noise = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    made = pipeline(
        latents=packed(torch.cat(noise)),
        num_images_per_prompt=len(seeds),
        num_inference_steps=3,
        height=32,
        width=32,
        output_type="np",
        **options,
    )
    return (made.images * 255).round()


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("negative", ["", "a blue dog at night"])
def test_generate(base, pipeline, scale, negative):
    """Pictures are those of diffusers' pipeline, bit for bit."""
    options = {"num_inference_steps": 3, "guidance_scale": scale, "negative_prompt": negative}
    ours = generate(base, "a red cat", seed=3, num_images=2, **options)
    theirs = own_pictures(pipeline, 3, 4, prompt="a red cat", negative_prompt=negative, true_cfg_scale=scale)
    assert np.array_equal(np.stack([np.asarray(picture) for picture in ours]), theirs)
    assert not np.array_equal(theirs[0], theirs[1])


def test_guidance_keeps_the_length_of_every_token(base):
    own, other = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    guided = base.family.combination.of(own, other, 4.0)
    torch.testing.assert_close(packed(guided).norm(dim=-1), packed(own).norm(dim=-1))
    assert not torch.allclose(guided, own)


def test_one_step_gives_numbers(base):
    """Its scheduler stretches times to both ends, which one step cannot have."""
    (picture,) = generate(base, "a cat", num_inference_steps=1)
    assert np.asarray(picture).std() > 0


def test_filling_is_not_seen(base):
    """Prompts of different lengths in one batch give what each gives alone."""
    family, noise = base.family, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([300.0, 800.0])
    texts = ["a cat", "a photo of a dog in a forest at night"]
    with torch.no_grad():
        both = family.condition(texts)
        together = family.predict(noise, times, both)
        for place, text in enumerate(texts):
            alone = family.predict(noise[place : place + 1], times[place], family.condition([text]))
            torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-5)
    assert both.features.shape == (2, LENGTH - 34, 16)
    assert both.mask.sum(1).tolist() == [7, 15] and not both.features[0, 7:].any()


def test_what_layers_see(base):
    """Layers behind the last text are in no selection, as nothing reads what they give."""
    sees = {name.removeprefix("transformer."): layer.sees for name, layer in base.family.layers("linear").items()}
    block = "transformer_blocks.0.attn"
    assert (sees[f"{block}.to_q"], sees[f"{block}.add_q_proj"]) == ("picture", "both")
    assert "transformer_blocks.0.txt_mlp.net.2" in sees and "transformer_blocks.1.txt_mlp.net.2" not in sees
    assert "transformer_blocks.1.attn.add_k_proj" in sees and "transformer_blocks.1.attn.add_q_proj" not in sees
    assert "transformer.transformer_blocks.1.attn.add_q_proj" in base.family.every_layer()


def test_tokens_are_saved_in_the_language_model(base, tmp_path):
    """Its head gets rows, too, and has its own back afterwards."""
    head = base.pipeline.text_encoder.lm_head.weight
    with base.with_tokens(tokens_of({"<anna>": torch.full((16,), 0.5)})):
        inside = base.family.condition(["a <anna> cat"])
        written = load_base(base.save(tmp_path / "written"))
    assert written.tokens == ("<anna>",) and base.tokens == ()
    assert torch.equal(written.family.condition(["a <anna> cat"]).features, inside.features)
    assert not torch.equal(base.family.condition(["a <anna> cat"]).features, inside.features)
    assert base.pipeline.text_encoder.lm_head.weight is head and len(head) == len(base.pipeline.tokenizer)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("guidance_embeds", True, "transformer guidance_embeds is True; allowed is False"),
        ("use_layer3d_rope", True, "transformer use_layer3d_rope is True; allowed is False"),
        ("patch_size", 4, "transformer patch_size is 4; allowed is 2"),
    ],
)
def test_transformers_that_its_pipeline_cannot_call(tmp_path, setting, value, message):
    folder = build_qwen_image(tmp_path / "pipeline")
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    out_channels = 4 * config["out_channels"] // value**2 if setting == "patch_size" else config["out_channels"]
    path.write_text(json.dumps({**config, setting: value, "out_channels": out_channels}))
    with pytest.raises(BaseModelError, match=message):
        load_base(folder)


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_a_foreign_file_folds_as_diffusers_reads_it(base, folder, tmp_path, style):
    """A file of other programs, drawn by both."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in base.family.layers("attention").items():
        down = torch.randn(2, layer.linear.in_features, generator=generator) / 4
        up = torch.randn(layer.linear.out_features, 2, generator=generator) / 4
        if style == "diffusers":
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        else:
            flat = "lora_unet_" + name.removeprefix("transformer.").replace(".", "_")
            tensors |= {
                f"{flat}.lora_down.weight": down,
                f"{flat}.lora_up.weight": up,
                f"{flat}.alpha": torch.tensor(2.0),
            }
    save_file(tensors, tmp_path / "lora.safetensors")
    concept = foreign_concept(read_lora(tmp_path / "lora.safetensors", family="qwen_image"), base.identity)
    options = {"seed": 1, "num_inference_steps": 3, "guidance_scale": 1.0}
    ours, plain = (np.asarray(generate(base, "a cat", merge=change, **options)[0]) for change in (concept, None))
    pipeline = QwenImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    (theirs,) = own_pictures(pipeline, 1, prompt="a cat")
    assert np.abs(ours - theirs).max() <= 1  # added to the output there, to the weights here
    assert np.abs(ours.astype(int) - plain).max() > 1
