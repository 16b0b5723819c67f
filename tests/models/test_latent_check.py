"""Networks of usual settings are checked without a trial, others are tried once."""

import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig

from orthoplex.models import load_base
from orthoplex.models.families import latent_check, stable_diffusion_check
from orthoplex.models.families.layouts.stable_diffusion import _SD1, _SD2
from orthoplex.models.families.stable_diffusion import StableDiffusion

STORED = {
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "pad_token_id": 1,
    "torch_dtype": "float32",
    "vocab_size": 49408,
}
"""What the published text encoders' config.json hold alike."""
PUBLISHED = {
    "sd1": (
        _SD1["unet"],
        _SD1["text_encoder"] | STORED | {"hidden_act": "quick_gelu", "num_attention_heads": 12, "projection_dim": 768},
    ),
    "sd2": (
        _SD2["unet"],
        _SD2["text_encoder"] | STORED | {"hidden_act": "gelu", "num_attention_heads": 16, "projection_dim": 512},
    ),
    "lcm": (_SD1["unet"] | {"time_cond_proj_dim": 256}, _SD1["text_encoder"] | STORED),
}
"""The configurations of published bases."""
SD_AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}


@pytest.fixture
def trials(monkeypatch):
    """The components that are tried."""
    seen = []
    monkeypatch.setattr(latent_check._TRIALS, "of", lambda key, trial: seen.append(key[0].__name__) or key[-1])
    return seen


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_check_of_stable_diffusion_is_quick(pico, name, trials):
    """Settings of published bases are usual ones, so that no network is tried."""
    unet, text = PUBLISHED[name]
    config = CLIPTextConfig.from_dict(text)
    tokenizer = SimpleNamespace(model_max_length=77)
    reader = SimpleNamespace(network=SimpleNamespace(config=config), component="text_encoder", tokenizer=tokenizer)
    with torch.device("meta"):
        autoencoder = AutoencoderKL(**SD_AUTOENCODER)
    latent_check.try_text_encoder(reader, stable_diffusion_check.USUAL_TEXT)
    own = latent_check.own_settings(pico.pipeline.unet)
    assert not latent_check.is_unusual(unet, own, stable_diffusion_check.USUAL_UNET)
    pixels, latents = torch.empty(1, 3, 8, 8, device="meta"), torch.empty(1, 4, 1, 1, device="meta")
    latent_check.try_autoencoder(autoencoder, pixels, latents, stable_diffusion_check.USUAL_AUTOENCODER)
    assert trials == []


@pytest.mark.parametrize("name", ["pico", "vignette"])
def test_bases_at_hand_are_checked_without_a_trial(pico, name, trials):
    base = pico if name == "pico" else load_base(name)
    StableDiffusion.check(base.pipeline)  # its scheduler is remembered from here on
    began = time.process_time()
    StableDiffusion.check(base.pipeline)
    assert trials == [] and time.process_time() - began < 0.05


@pytest.mark.parametrize(
    ("settings", "own", "expected"),
    [
        ({"size": 3}, {"size": 3}, False),
        ({"size": (1, 2)}, {"size": [1, 2]}, False),
        ({"size": 0}, {"size": 3}, True),
        ({"size": None}, {"size": 3}, True),
        ({"size": 4}, {"size": 3}, False),
        ({"size": True}, {"size": 1}, True),
        ({"other": 4}, {"other": 3}, True),
        ({"other": 4}, {}, True),
        ({"other": None}, {}, True),
        ({"bos_token_id": 0, "dropout": 0.0, "attention_dropout": 0.5}, {}, False),
        ({"eos_token_id": None}, {"eos_token_id": 2}, True),
        ({"dropout": "text"}, {"dropout": 0.0}, True),
        ({"_name_or_path": "x"}, {}, False),
    ],
)
def test_which_settings_are_unusual(settings, own, expected):
    assert latent_check.is_unusual(settings, own, {"size"}) is expected


def test_a_trial_is_made_once(pico_folder, tmp_path, pico, monkeypatch):
    folder = shutil.copytree(pico_folder, tmp_path / "base")
    config = {key: value for key, value in pico.pipeline.unet.config.items() if not key.startswith("_")}
    UNet2DConditionModel(**{**config, "mid_block_type": None}).save_pretrained(folder / "unet")
    load_base(folder)
    monkeypatch.setattr(latent_check, "_shape_of", lambda *arguments: pytest.fail("it is tried again"))
    load_base(folder)
