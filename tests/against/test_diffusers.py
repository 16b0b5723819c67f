"""A concept file in diffusers' own loader, and a saved merge in diffusers' own pipeline, give the pictures we give."""

from __future__ import annotations

import logging

import numpy
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from orthoplex.concepts import load_concept, save_concept
from orthoplex.generation import generate
from orthoplex.models import Base
from tests.pico import make_concept, vectors_of

PROMPT = "a photo of <anna> person in the forest"


def psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = numpy.asarray(first, numpy.float64) - numpy.asarray(second, numpy.float64)
    return float(10 * numpy.log10(255**2 / max(1e-10, numpy.mean(error**2))))


def diffusers_picture(pipeline: StableDiffusionPipeline, prompt: str) -> Image.Image:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(3),
    ).images[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("ranks", [(2,), (1, 2, 3)], ids=["one rank", "mixed ranks"])
def test_diffusers_loads_our_file_and_makes_our_picture(pico: Base, pico_folder, tmp_path, caplog, dtype, ranks):
    path = tmp_path / "anna.safetensors"
    save_concept(
        make_concept(pico, "anna", text_encoder=True, ranks=ranks, scale=0.3, num_vectors=2), path, dtype=dtype
    )
    concept = load_concept(path, base=pico.identity)
    ours = generate(pico, PROMPT, merge=concept, seed=3, num_inference_steps=4, guidance_scale=4.0)[0]
    plain = generate(pico, "a photo of person in the forest", seed=3, num_inference_steps=4, guidance_scale=4.0)[0]

    pipeline = StableDiffusionPipeline.from_pretrained(pico_folder)
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(path)
    assert "No LoRA keys" not in caplog.text and "unexpected" not in caplog.text
    for token, vector in vectors_of(concept.tokens).items():
        pipeline.load_textual_inversion(vector[None], token=token)
    theirs = diffusers_picture(pipeline, PROMPT)  # it spells out <anna> <anna>_1 itself

    assert psnr(ours, theirs) > 45
    assert psnr(ours, plain) < 30, "the concept must matter for the comparison to mean anything"


def test_a_saved_merge_is_an_ordinary_pipeline_with_our_picture(pico: Base, tmp_path):
    concept = make_concept(pico, "anna", text_encoder=True, scale=0.3)
    with pico.folded(concept):
        ours = generate(pico, PROMPT, seed=3, num_inference_steps=4, guidance_scale=4.0)[0]
        pico.save(tmp_path / "merged")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert psnr(ours, diffusers_picture(pipeline, PROMPT)) > 45


def test_diffusers_fuses_to_our_folded_weights(pico: Base, pico_folder, tmp_path):
    path = tmp_path / "anna.safetensors"
    concept = make_concept(pico, "anna", ranks=(1, 2, 3), text_encoder=True, num_vectors=0)
    save_concept(concept, path)
    pipeline = StableDiffusionPipeline.from_pretrained(pico_folder)
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    with pico.folded(concept):
        ours = {**pico.pipeline.unet.state_dict(), **pico.pipeline.text_encoder.state_dict()}
        theirs = {**pipeline.unet.state_dict(), **pipeline.text_encoder.state_dict()}
        assert ours.keys() == theirs.keys()
        for name, weight in ours.items():
            torch.testing.assert_close(theirs[name], weight, msg=name)
