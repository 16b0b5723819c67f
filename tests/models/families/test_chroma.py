"""Chroma on a pico pipeline of its exact classes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ChromaPipeline

from orthoplex.files import without_warnings
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.packing import packed
from tests.pico_flow import MAX_LENGTH, build_chroma


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_chroma(tmp_path_factory.mktemp("chroma") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_generate(base, folder, scale):
    """Pictures are those of diffusers' pipeline for prompts without filling, which its mask does not keep out."""
    (ours,) = generate(base, "a red cat", seed=3, negative_prompt="blue", num_inference_steps=3, guidance_scale=scale)
    with without_warnings():
        pipeline = ChromaPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        texts = [base.family.condition([text]).trimmed() for text in ("a red cat", "blue")]
    assert [text.features.shape[1] for text in texts] == [5, 3]  # words, the end, one position of filling
    theirs = pipeline(
        prompt_embeds=texts[0].features,
        prompt_attention_mask=texts[0].mask.float(),
        negative_prompt_embeds=texts[1].features,
        negative_prompt_attention_mask=texts[1].mask.float(),
        latents=packed(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))),
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=scale,
        output_type="np",
    ).images[0]
    assert np.array_equal(np.asarray(ours), (theirs * 255).round())


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
    assert both.features.shape[1] == MAX_LENGTH and both.mask.sum(1).tolist() == [4, 12]


def test_filling_is_not_seen_where_parts_are_computed_again(base):
    """diffusers hands no mask to the single blocks then."""
    family, noise = base.family, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([300.0, 800.0])
    predictions, gradients = [], []
    for recomputes in (False, True):
        with family.recomputed() if recomputes else nullcontext():
            features = family.condition(["a cat", "a photo of a dog in a forest at night"])
            given = replace(features, features=features.features.detach().requires_grad_())
            prediction = family.predict(noise, times, given)
            prediction.square().sum().backward()
        predictions.append(prediction.detach())
        gradients.append(given.features.grad)
    assert torch.equal(*predictions) and torch.equal(*gradients)


def test_masks_are_filled_up_when_prompts_are_put_together():
    short = Conditioning(torch.ones(1, 2, 3), mask=torch.ones(1, 2, dtype=torch.bool))
    long = Conditioning(torch.ones(1, 4, 3), mask=torch.tensor([[True, True, True, False]]))
    whole = Conditioning.cat([short, long])
    assert whole.features.shape == (2, 4, 3) and whole.features[0, 2:].sum() == 0
    assert whole.mask.tolist() == [[True, True, False, False], [True, True, True, False]]
    assert whole.trimmed().features.shape == (2, 3, 3)
    assert whole.take(torch.tensor([0])).trimmed().features.shape == (1, 2, 3)
