"""Diffusers draws a concept of Stable Diffusion XL that was trained here, and makes our picture."""

from __future__ import annotations

import logging

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open

from orthoplex.concepts import load_concept
from orthoplex.concepts.exchange.reading import lora_of_concept
from orthoplex.concepts.exchange.writing import write_lora
from orthoplex.generation import generate
from orthoplex.training import ConceptDataset, TrainingConfig, train
from tests.against.test_diffusers import diffusers_picture, psnr
from tests.pico_xl import make_concept_xl
from tests.training.conftest import write_pictures

PROMPT = "a photo of <anna> person in the forest"


@pytest.fixture(scope="module")
def trained(shared_pico_xl, tmp_path_factory):
    """A concept file: five steps on layers of the denoiser and both text encoders, with two tokens in both."""
    folder = tmp_path_factory.mktemp("xl")
    pictures = write_pictures(folder / "pictures", 2)
    dataset = ConceptDataset.from_folder(pictures, resolution=32, token="<anna>", class_word="person", kind="person")
    config = TrainingConfig(
        method="lora",
        rank=2,
        layers="attention",
        text_encoder=True,
        learning_rate=0.3,
        token_learning_rate=0.3,
        steps=5,
        batch_size=1,
        erasure=0.0,
        prior_pictures=0,
        mixed_precision="no",
        thumbnail="none",
    )
    *_, last = train(shared_pico_xl, dataset, config, output=folder / "anna.safetensors")
    return last.output


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_diffusers_draws_what_was_trained_here(pico_xl, pico_xl_folder, trained, tmp_path, caplog, style):
    concept = load_concept(trained, base=pico_xl.identity)
    ours = generate(pico_xl, PROMPT, merge=concept, seed=3, num_inference_steps=4, guidance_scale=4.0)[0]
    plain = generate(pico_xl, "a photo of person in the forest", seed=3, num_inference_steps=4, guidance_scale=4.0)[0]
    paths = write_lora(lora_of_concept(concept), tmp_path / "anna.safetensors", style=style)
    with safe_open(paths[0], "pt") as file:
        alphas = {float(file.get_tensor(name)) for name in file.keys() if name.endswith(".alpha")}
        names = {name.split(".")[0].rsplit("_text_model")[0].split("_unet")[0] for name in file.keys()}
    assert len(alphas) <= 1, "diffusers gives the attention and the text encoders one alpha"
    assert (
        names == {"unet", "text_encoder", "text_encoder_2"}
        if style == "diffusers"
        else {"lora_te1", "lora_te2"} <= names
    )

    pipeline = StableDiffusionXLPipeline.from_pretrained(pico_xl_folder)
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(paths[0])
    assert "No LoRA keys" not in caplog.text and "unexpected" not in caplog.text
    for token, item in concept.tokens.items():
        vectors = item.placement.vectors
        for network, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
            pipeline.load_textual_inversion(
                vectors[network][None],
                token=token,
                text_encoder=getattr(pipeline, network),
                tokenizer=getattr(pipeline, tokenizer),
            )
    theirs = diffusers_picture(pipeline, PROMPT)
    assert psnr(ours, theirs) >= 50
    assert psnr(ours, plain) < 30, "the concept must matter for the comparison to mean anything"


def test_diffusers_fuses_to_our_folded_weights(pico_xl, pico_xl_folder, tmp_path):
    concept = make_concept_xl(pico_xl, num_vectors=0)
    paths = write_lora(lora_of_concept(concept), tmp_path / "anna.safetensors", style="kohya")
    pipeline = StableDiffusionXLPipeline.from_pretrained(pico_xl_folder)
    pipeline.load_lora_weights(paths[0])
    pipeline.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"])
    pipeline.unload_lora_weights()
    with pico_xl.folded(concept):
        for component, network in pico_xl.family.components().items():
            theirs = pipeline.components[component].state_dict()
            for name, weight in network.state_dict().items():
                torch.testing.assert_close(theirs[name], weight, msg=name)
