import numpy as np
import pytest
import torch

from orthoplex.generation import generate
from orthoplex.models import load_base


@pytest.fixture(scope="module")
def base():
    return load_base("vignette")


def convolutions(base):
    return [weights for weights in base.pipeline.unet.parameters() if weights.ndim == 4 and weights.shape[-1] > 1]


def are_turned(base):
    return {weights.is_contiguous(memory_format=torch.channels_last) for weights in convolutions(base)}


def test_weights_lie_otherwise_and_are_the_same(base):
    base.family.channels_first()
    before = {name: weights.clone() for name, weights in base.pipeline.unet.named_parameters()}
    for _ in range(2):
        base.family.channels_last()
        assert are_turned(base) == {True}
    for name, weights in base.pipeline.unet.named_parameters():
        assert torch.equal(weights, before[name])
    base.family.channels_first()
    assert are_turned(base) == {False}


def test_a_turned_base_gives_its_state_as_it_usually_lies(base, tmp_path):
    base.family.channels_last()
    for network in (base.pipeline.unet, base.pipeline.vae):
        named = dict(network.named_parameters())
        for name, weights in network.state_dict().items():
            assert weights.is_contiguous() and torch.equal(weights, named.get(name, weights))
    base.pipeline.save_pretrained(tmp_path / "whole")  # safetensors' own writer refuses other layouts
    assert are_turned(base) == {True}


def test_pictures_are_those_of_the_pipeline_but_for_rounding(base):
    turned = []
    ours = generate(
        base,
        "a cat",
        seed=3,
        num_inference_steps=2,
        guidance_scale=4.0,
        progress=lambda _: turned.append(are_turned(base) == {True}),
    )
    noise = torch.Generator().manual_seed(3)
    plain = base.pipeline("a cat", num_inference_steps=2, guidance_scale=4.0, generator=noise)
    assert turned == [True, True]
    assert np.abs(np.asarray(ours[0]).astype(int) - np.asarray(plain.images[0]).astype(int)).max() <= 1
