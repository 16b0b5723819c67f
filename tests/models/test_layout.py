import copy

import numpy as np
import pytest
import torch

from orthoplex.generation import generate
from orthoplex.models import channels_last, load_base


@pytest.fixture(scope="module")
def base():
    return load_base("vignette")


def convolutions(base):
    return [weights for weights in base.pipeline.unet.parameters() if weights.ndim == 4 and weights.shape[-1] > 1]


def are_turned(base):
    return {weights.is_contiguous(memory_format=torch.channels_last) for weights in convolutions(base)}


def test_inside_weights_lie_otherwise_and_are_the_same(base):
    before = copy.deepcopy(base.pipeline.unet.state_dict())
    with channels_last(base.pipeline):
        assert are_turned(base) == {True}
        with channels_last(base.pipeline):
            pass
        assert are_turned(base) == {True}
    assert are_turned(base) == {False}
    for name, weights in base.pipeline.unet.state_dict().items():
        assert weights.is_contiguous() and torch.equal(weights, before[name])


def test_they_lie_as_before_after_an_error(base):
    with pytest.raises(RuntimeError), channels_last(base.pipeline):
        raise RuntimeError
    assert are_turned(base) == {False}
    assert all(weights.is_contiguous() for weights in base.pipeline.vae.parameters())


def test_pictures_are_those_of_the_pipeline_but_for_rounding(base):
    turned = []
    ours = generate(
        base, "a cat", seed=3, num_inference_steps=2, progress=lambda _: turned.append(are_turned(base) == {True})
    )
    noise = torch.Generator().manual_seed(3)
    plain = base.pipeline("a cat", num_inference_steps=2, guidance_scale=4.0, generator=noise)
    assert turned == [True, True]
    assert np.abs(np.asarray(ours[0]).astype(int) - np.asarray(plain.images[0]).astype(int)).max() <= 1
