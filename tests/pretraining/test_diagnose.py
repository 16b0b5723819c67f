"""Pictures that are denoised from near the end are what went in; from noise alone they are not."""

import argparse

import pytest
import torch
from PIL import Image

from orthoplex.models import load_base
from pretraining import diagnose
from pretraining.compose import SIZE

OPTIONS = argparse.Namespace(steps=4, first=[3, 0], guidance=2.0, eta=0.0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_last_step_alone_stays_near_what_it_is_given(eta: float) -> None:
    pipe = load_base("vignette").pipeline
    pipe.scheduler.set_timesteps(OPTIONS.steps)
    clean = torch.randn(2, pipe.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    empty, told = (pipe.encode_prompt(texts, "cpu", 1, False)[0].detach() for texts in ([""], ["a fox", "a cave"]))

    def denoised(latents: torch.Tensor, first: int) -> torch.Tensor:
        return diagnose.denoised(pipe, latents, (empty, told), first, 2.0, eta, torch.Generator().manual_seed(first))

    with torch.no_grad():
        distances = [float((denoised(clean, first) - clean).square().mean()) for first in (3, 2, 1, 0)]
    assert distances[0] < 0.6 * min(distances[1:])


def test_every_way_has_a_picture_per_prompt() -> None:
    pipe = load_base("vignette").pipeline
    composites = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    made = diagnose.ways(pipe, composites, ["a fox", "a cave"], OPTIONS)
    assert list(made) == ["composites", "autoencoder", "from t = 249", "from noise"]
    assert all([picture.size for picture in shown] == [(SIZE, SIZE)] * 2 for shown in made.values())
