"""Stable Diffusion as a family: layers by what they see, prompts, latents, and pictures as diffusers makes them."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from torch import nn

from orthoplex.activations import observed_inputs
from orthoplex.concepts import BaseIdentity
from orthoplex.errors import BaseModelError, ConfigurationError, OrthoplexError
from orthoplex.models import Base, Conditioning, PictureRequest, Pictures, PictureStep, finished, load_base
from tests.pico import MAX_LENGTH, TEXT_WIDTH

PROMPTS = ["a cat", "a red car"]


@pytest.fixture
def base(pico_folder):
    """A base of its own, whose pipeline a test may change."""
    return load_base(pico_folder)


def drawn(base, **options):
    request = PictureRequest(PROMPTS, torch.Generator().manual_seed(3), 3, **{"guidance_scale": 4.0, **options})
    return list(base.family.picture(request))


@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [
        (DDIMScheduler, {}),
        (PNDMScheduler, {"skip_prk_steps": True}),
        (EulerDiscreteScheduler, {}),
        (EulerAncestralDiscreteScheduler, {}),
        (HeunDiscreteScheduler, {}),
    ],
)
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' own schedulers
def test_pictures_are_those_of_diffusers_bit_for_bit(base, scheduler, settings, guidance_scale):
    base.pipeline.scheduler = scheduler.from_config(base.pipeline.scheduler.config, **settings)
    options = {"num_inference_steps": 3, "guidance_scale": guidance_scale, "output_type": "np"}
    theirs = copy.copy(base.pipeline)(
        PROMPTS,
        negative_prompt=["dog"] * 2,
        num_images_per_prompt=2,
        generator=torch.Generator().manual_seed(3),
        **options,
    ).images
    ours = drawn(base, guidance_scale=guidance_scale, negative_prompt="dog", pictures_per_prompt=2)[-1]
    assert isinstance(ours, Pictures) and np.array_equal(ours.pixels, theirs)
    images = base.pipeline.image_processor.numpy_to_pil(theirs)
    assert [image.tobytes() for image in ours.images()] == [image.tobytes() for image in images]


@pytest.mark.parametrize(
    ("folder", "dtype"),
    [
        ("pico_folder", torch.float32),
        ("pico_folder", torch.bfloat16),
        ("pico_xl_folder", torch.float16),
        ("pico_xl_folder", torch.bfloat16),
    ],
)
@pytest.mark.filterwarnings("ignore:.upcast_vae. is deprecated:FutureWarning")  # of diffusers' own pipeline in float16
def test_an_embedded_guidance_reaches_the_denoiser(request, folder, dtype):
    """As latent consistency models have it, whose guidance is embedded beside the time; in every type of weights."""
    base = load_base(request.getfixturevalue(folder), dtype=dtype)
    base.pipeline.unet.register_to_config(time_cond_proj_dim=8)
    embedding = base.pipeline.unet.time_embedding
    embedding.cond_proj = nn.Linear(8, embedding.linear_1.in_features, bias=False, dtype=dtype)
    theirs = copy.copy(base.pipeline)(
        PROMPTS, num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator().manual_seed(3), output_type="np"
    ).images
    assert np.array_equal(drawn(base)[-1].pixels, theirs)


def test_steps_come_as_they_are_done_and_then_the_pictures(pico):
    *steps, last = drawn(pico)
    assert steps == [PictureStep(1, 3), PictureStep(2, 3), PictureStep(3, 3)]
    assert last.latents.shape == (2, 4, 8, 8) and last.pixels.shape == (2, 32, 32, 3)
    assert not last.latents.requires_grad


def test_latents_alone_are_not_decoded(base, monkeypatch):
    monkeypatch.setattr(base.pipeline.vae, "decode", None)
    last = drawn(base, decoded=False)[-1]
    assert last.pixels is None
    with pytest.raises(OrthoplexError, match="pictures were asked for as latents alone"):
        last.images()


def test_steps_without_pictures_at_their_end_are_refused():
    with pytest.raises(OrthoplexError, match="a base ended without pictures"):
        finished([PictureStep(1, 1)])


def test_layers_see_what_the_table_says(pico):
    """Text has as many positions as the prompt, a picture as many as its latents, and a time is one row a picture."""
    seen = {}
    linears = pico.family.every_layer()
    with observed_inputs(linears, lambda layer, _, x: seen.update({layer: x.shape})):
        drawn(pico, guidance_scale=1.0)
    assert seen.keys() == linears.keys()
    for layer, shape in seen.items():
        sees = pico.family.table.sees(layer)
        assert (shape[1] == MAX_LENGTH) == (sees == "text"), layer
        assert (len(shape) == 2) == (sees == "time"), layer
    assert {layer.sees for layer in pico.family.layers("cross-attention-kv", text_encoder=True).values()} == {"text"}
    assert {layer.sees for layer in pico.family.layers("attention").values()} == {"text", "picture"}


def test_feature_layers_are_the_denoisers_that_see_text(pico):
    chosen = pico.family.layers("cross-attention-kv")
    assert pico.family.feature_layers() == {name: layer.linear for name, layer in chosen.items()}
    assert pico.family.see_text_alone([*chosen, "text_encoder.text_model.encoder.layers.0.mlp.fc1"])
    assert not pico.family.see_text_alone([*chosen, "unet.mid_block.attentions.0.proj_in"])
    assert not pico.family.see_text_alone([*chosen, "transformer.unknown"])


def test_a_selection_without_layers_is_refused_with_what_there_is(base, monkeypatch):
    def select(selection, *, text_encoder):
        names = ["unet.a"] * (selection == "linear") + ["text_encoder.a"] * text_encoder
        return {name: nn.Linear(1, 1) for name in names}

    monkeypatch.setattr(base.family, "select", select)
    for text_encoder in (False, True):
        with pytest.raises(
            ConfigurationError, match="base 'pipeline' has no layers 'cross-attention-kv', allowed are linear"
        ):
            base.family.layers("cross-attention-kv", text_encoder=text_encoder)
    monkeypatch.setattr(base.family, "select", lambda selection, *, text_encoder: {})
    with pytest.raises(ConfigurationError, match="has no layers 'linear', allowed are none"):
        base.family.layers("linear")


def test_conditions_are_taken_joined_and_turned(pico):
    every = pico.family.condition([*PROMPTS, "a dog"])
    assert len(every) == 3 and every.features.shape == (3, MAX_LENGTH, TEXT_WIDTH)
    again = pico.family.condition(pico.family.words.ids([*PROMPTS, "a dog"]))
    assert torch.equal(again.features, every.features)
    marked = Conditioning(every.features, {"number": torch.arange(3), "mask": torch.ones(3, 2, dtype=torch.bool)})
    joined = Conditioning.cat([marked.take(torch.tensor([2, 0])), marked.take(torch.tensor([1]))])
    assert joined.extras["number"].tolist() == [2, 0, 1]
    assert torch.equal(joined.features[0], every.features[2])
    half = joined.to(torch.float16)
    assert half.features.dtype == torch.float16 and half.extras["number"].dtype == torch.int64
    assert half.extras["mask"].dtype == torch.bool


def test_latents_and_pixels_are_a_pair(base):
    base.pipeline.vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = base.family.latents(pixels)
    assert latents.shape == (2, *base.family.latent_shape)
    plain = base.pipeline.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, (plain - 0.25) * 0.5)
    torch.testing.assert_close(base.family.pixels(latents), base.pipeline.vae.decode(plain).sample)


def test_noise_and_sizes(pico):
    noise = pico.family.noise(2, torch.Generator().manual_seed(1))
    assert torch.equal(noise, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert (pico.family.resolution, pico.family.pixels_per_latent, pico.family.text_width) == (32, 4, TEXT_WIDTH)
    assert pico.family.passes_features


def test_projected_features_are_not_passed_on(base):
    base.pipeline.unet.register_to_config(cross_attention_norm="layer_norm")
    assert not base.family.passes_features


def test_pipelines_of_no_family_are_refused(pico):
    with pytest.raises(BaseModelError, match="a Linear is no base, supported are .*StableDiffusionPipeline"):
        Base(nn.Linear(1, 1), pico.identity)


def test_versions_without_a_layer_table_are_refused(pico):
    with pytest.raises(BaseModelError, match="base 'it' is of family 'sd9', whose layers no table knows"):
        Base(pico.pipeline, BaseIdentity(family="sd9", hash="0", name="it"))
