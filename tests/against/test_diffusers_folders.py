"""Folders that we write, and the embedded base, in diffusers' own pipeline, with no argument."""

from __future__ import annotations

import json
import shutil

import numpy
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from orthoplex import vignette
from orthoplex.generation import generate
from orthoplex.models import load_base
from tests.pico import make_concept

PROMPT = "a photo of <anna> person in the forest"


def plain_picture(folder, prompt):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    types = {component: pipeline.components[component].dtype for component in ("unet", "vae", "text_encoder")}
    assert set(types.values()) == {torch.float32}, types
    picture = pipeline(
        prompt, num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator().manual_seed(3)
    ).images[0]
    return numpy.asarray(picture, numpy.int16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_merged_folder_of_any_type_draws_at_once(pico, tmp_path, dtype):
    with pico.folded(make_concept(pico, "anna", text_encoder=True, scale=0.3)):
        pico.save(tmp_path / "merged", dtype=dtype)
    theirs = plain_picture(tmp_path / "merged", PROMPT)
    ours = generate(load_base(tmp_path / "merged"), PROMPT, seed=3, num_inference_steps=3, guidance_scale=4.0)[0]
    assert numpy.abs(theirs - numpy.asarray(ours, numpy.int16)).max() <= 2


def test_the_embedded_base_draws_at_once():
    prompt = "a photo of a woman in the forest"
    theirs = plain_picture(vignette.folder(), prompt)
    ours = generate(load_base("vignette"), prompt, seed=3, num_inference_steps=3, guidance_scale=4.0)[0]
    assert numpy.abs(theirs - numpy.asarray(ours, numpy.int16)).max() <= 2


def test_a_folder_loads_in_half_where_that_is_asked_for(pico, tmp_path):
    pico.save(tmp_path / "half", dtype=torch.float16)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "half", dtype=torch.float16)
    assert {pipeline.components[name].dtype for name in ("unet", "vae", "text_encoder")} == {torch.float16}


@pytest.fixture
def both_tokenizers(tmp_path):
    """The tokenizer of a folder as newer releases read it, and from the files that older ones know alone."""

    def both(folder):
        shutil.copytree(folder / "tokenizer", tmp_path / "older")
        (tmp_path / "older" / "tokenizer.json").unlink()
        return CLIPTokenizer.from_pretrained(folder / "tokenizer"), CLIPTokenizer.from_pretrained(tmp_path / "older")

    return both


def test_the_tokenizer_files_of_older_releases_say_the_same(both_tokenizers):
    newer, older = both_tokenizers(vignette.folder())
    prompts = [*vignette.foreign_prompts(), "Wörter, die es nicht gibt: 42 €!", ""]
    assert len(prompts) > 100
    for prompt in prompts:
        assert newer(prompt).input_ids == older(prompt).input_ids, prompt
    assert newer.model_max_length == older.model_max_length == 32
    whole = json.loads((vignette.folder() / "tokenizer" / "tokenizer.json").read_text("utf-8"))["model"]
    assert json.loads((vignette.folder() / "tokenizer" / "vocab.json").read_text("utf-8")) == whole["vocab"]


def test_the_tokens_of_concepts_are_in_the_older_files_too(pico, tmp_path, both_tokenizers):
    with pico.folded(make_concept(pico, "anna", num_vectors=2)):
        pico.save(tmp_path / "merged")
        own = pico.pipeline.tokenizer
        newer, older = both_tokenizers(tmp_path / "merged")
        for prompt in (PROMPT, "<anna> <anna>_1 person, red", "a cat"):
            assert own(prompt).input_ids == newer(prompt).input_ids == older(prompt).input_ids
