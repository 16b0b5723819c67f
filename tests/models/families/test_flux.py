"""FLUX.1 on a pico pipeline of its exact classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file

from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.packing import packed, unpacked
from orthoplex.training import ConceptDataset, TrainingConfig
from orthoplex.training.run import Run
from tests.pico import tokens_of
from tests.pico_flow import MAX_LENGTH, build_flux
from tests.training.conftest import write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_flux(tmp_path_factory.mktemp("flux") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


def own_pictures(folder: Path, prompt: str, **options: Any) -> np.ndarray:
    """The pictures of diffusers' pipeline."""
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(prompt, height=32, width=32, max_sequence_length=MAX_LENGTH, output_type="np", **options)
    return (made.images * 255).round()


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_generate(base, folder, scale):
    """Pictures are those of diffusers' pipeline, bit for bit."""
    ours = generate(base, "a red cat", seed=3, num_images=2, num_inference_steps=3, guidance_scale=scale)
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    theirs = own_pictures(
        folder,
        "a red cat",
        latents=packed(noise),
        num_images_per_prompt=2,
        num_inference_steps=3,
        guidance_scale=scale,
    )
    assert np.array_equal(np.stack([np.asarray(picture) for picture in ours]), theirs)
    assert not np.array_equal(theirs[0], theirs[1])


def test_schnell_follows_no_guidance(tmp_path):
    base = load_base(build_flux(tmp_path / "schnell", guidance=False))
    weak, strong = (generate(base, "a cat", num_inference_steps=2, guidance_scale=scale)[0] for scale in (1.0, 9.0))
    assert np.array_equal(np.asarray(weak), np.asarray(strong))
    with pytest.raises(ConfigurationError, match="guidance is trained into it; allowed is none"):
        generate(base, "a cat", negative_prompt="a dog", num_inference_steps=2)


def test_packing_comes_back():
    latents = torch.arange(2 * 4 * 4 * 6.0).view(2, 4, 4, 6)
    tokens = packed(latents)
    assert tokens.shape == (2, 6, 16)
    assert tokens[0, 1].tolist() == latents[0, :, 0:2, 2:4].flatten().tolist()
    assert torch.equal(unpacked(tokens, 4, 6), latents)


def test_what_layers_see(base):
    sees = {name.removeprefix("transformer."): layer.sees for name, layer in base.family.layers("attention").items()}
    assert (
        sees["transformer_blocks.0.attn.to_q"] == "picture" and sees["transformer_blocks.0.attn.add_q_proj"] == "both"
    )
    assert sees["single_transformer_blocks.0.attn.to_q"] == "both"
    with_text = base.family.layers("linear", text_encoder=True)
    assert "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q" in with_text
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj" in with_text
    assert not any("norm" in name or "embedder" in name for name in with_text)


def test_tokens_stand_in_both_text_encoders(base):
    before = base.family.condition(["a <anna> cat"])
    vectors = {"text_encoder": torch.full((24,), 0.5), "text_encoder_2": torch.full((32,), -0.5)}
    plain = tokens_of({"<anna>": torch.zeros(24)})["<anna>"]
    with pytest.raises(BaseModelError, match="has vectors of text_encoder, allowed are text_encoder, text_encoder_2"):
        base.prepared_tokens({"<anna>": plain})
    token = type(plain)(vectors)
    with base.with_tokens({"<anna>": token}):
        assert base.tokens == ("<anna>",)
        after = base.family.condition(["a <anna> cat"])
        numbers = base.pipeline.tokenizer_2("<anna>", add_special_tokens=False).input_ids
        row = base.pipeline.text_encoder_2.encoder.embed_tokens.weight[numbers[-1]]
        assert torch.equal(row, vectors["text_encoder_2"])
    assert not torch.equal(before.extras["pooled"], after.extras["pooled"])
    assert base.pipeline.text_encoder_2.encoder.embed_tokens.weight is base.pipeline.text_encoder_2.shared.weight


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a (red:1.3) cat", "has weights or BREAK, which base 'pipeline' does not read"),
        ("a cat BREAK a dog", "has weights or BREAK, which base 'pipeline' does not read"),
        ("cat " * 40, "tokens, base 'pipeline' reads at most"),
    ],
)
def test_prompts_that_are_not_read(base, prompt, message):
    with pytest.raises(PromptError, match=message):
        generate(base, prompt, num_inference_steps=1)


def test_a_negative_prompt_is_refused(base):
    with pytest.raises(ConfigurationError, match="does not read: its guidance is a number that the denoiser reads"):
        generate(base, "a cat", negative_prompt="a dog", num_inference_steps=1)


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_that_the_scheduler_has_not(base, steps):
    with pytest.raises(ConfigurationError, match=f"num_inference_steps is {steps}; allowed are"):
        generate(base, "a cat", num_inference_steps=steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "cross-attention-kv"}, "has no layers 'cross-attention-kv', allowed are attention, linear"),
        ({"token_vectors": "keys-and-values"}, "has no cross-attention layers; allowed are"),
        ({"token_vectors": "layer-wise"}, "has no cross-attention layers; allowed are"),
    ],
)
def test_trainings_that_it_has_no_layers_for(base, tmp_path, options, message):
    data = ConceptDataset.from_folder(
        write_pictures(tmp_path, 1), token="<anna>", class_word="person", kind="person", resolution=32
    )
    config = TrainingConfig.from_mapping(options, defaults=base.training_defaults)
    with pytest.raises(ConfigurationError, match=message):
        Run.of(base, data, config)


@pytest.mark.parametrize(("side", "allowed"), [(33, 8), (4, 8), (0, 8)])
def test_resolutions(base, side, allowed):
    with pytest.raises(ConfigurationError, match=f"resolution is {side}; allowed are multiples of {allowed}"):
        base.family.use_resolution(side)
    base.family.use_resolution(16)
    try:
        assert base.family.latent_shape == (4, 4, 4)
        assert generate(base, "a cat", num_inference_steps=1)[0].size == (16, 16)
    finally:
        base.family.use_resolution(None)
    assert base.family.resolution == 32


def _narrow(index: dict[str, Any], folder: Path) -> None:
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "pooled_projection_dim": 8}))


def _other_scheduler(index: dict[str, Any], folder: Path) -> None:
    index["scheduler"] = ["diffusers", "DDIMScheduler"]


def _other_encoder(index: dict[str, Any], folder: Path) -> None:
    index["text_encoder_2"] = ["transformers", "CLIPTextModel"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_narrow, "transformer"),
        (_other_scheduler, "scheduler is a DDIMScheduler; allowed is FlowMatchEulerDiscreteScheduler"),
        (_other_encoder, "text_encoder_2 is a CLIPTextModel, allowed are T5EncoderModel"),
    ],
)
def test_folders_whose_parts_do_not_fit(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any], Path], None], message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    index = json.loads((copy / "model_index.json").read_text())
    change(index, copy)
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match=message):
        load_base(copy)


def test_a_foreign_file_folds_as_diffusers_reads_it(base, folder, tmp_path):
    """A file in diffusers' names, drawn by both."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in base.family.layers("attention").items():
        down = torch.randn(2, layer.linear.in_features, generator=generator)
        up = torch.randn(layer.linear.out_features, 2, generator=generator)
        tensors |= {f"{name}.lora_A.weight": down / 4, f"{name}.lora_B.weight": up / 4}
    save_file(tensors, tmp_path / "lora.safetensors")
    concept = foreign_concept(read_lora(tmp_path / "lora.safetensors", family="flux"), base.identity)
    ours = generate(base, "a cat", merge=concept, seed=1, num_inference_steps=2, guidance_scale=3.5)[0]
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    theirs = pipeline(
        "a cat",
        latents=packed(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))),
        height=32,
        width=32,
        max_sequence_length=MAX_LENGTH,
        num_inference_steps=2,
        guidance_scale=3.5,
        output_type="np",
    ).images[0]
    difference = np.abs(np.asarray(ours) - (theirs * 255).round())
    assert difference.max() <= 1
    assert np.abs(np.asarray(ours) - np.asarray(generate(base, "a cat", seed=1, num_inference_steps=2)[0])).max() > 1
