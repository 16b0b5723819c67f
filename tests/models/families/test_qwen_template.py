"""What Qwen-Image and Krea 2 share: the template, the autoencoder, and what both refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Krea2Pipeline, QwenImagePipeline
from transformers import Qwen2TokenizerFast

from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.autoencoders import FrameAutoencoder
from orthoplex.models.families.flow_check import check_frames
from orthoplex.models.families.qwen_template import template
from orthoplex.training import ConceptDataset, TrainingConfig
from orthoplex.training.run import Run
from tests.pico_qwen_image import (
    LENGTH,
    build_krea2,
    build_qwen_image,
    build_template_tokenizer,
    build_video_autoencoder,
)
from tests.training.conftest import write_pictures

BUILDERS: Mapping[str, Callable[[Path], Path]] = {"qwen_image": build_qwen_image, "krea2": build_krea2}


@pytest.fixture(scope="module", params=BUILDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param) / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Qwen2TokenizerFast:
    return build_template_tokenizer(tmp_path_factory.mktemp("vocabulary"))


def test_templates_are_those_of_the_pipelines(base):
    form, pipeline = template(LENGTH), base.pipeline
    match pipeline:
        case QwenImagePipeline():
            assert f"{form.before}{{}}{form.behind}" == pipeline.prompt_template_encode
        case Krea2Pipeline():
            assert form.before == pipeline.prompt_template_encode_prefix
            assert form.behind == pipeline.prompt_template_encode_suffix


def test_what_fills_up_stands_behind_or_within(tokenizer):
    behind, within = template(50), template(50, filled_within=True)
    for form, filled in ((behind, range(41, 50)), (within, range(36, 45))):
        ids = form.ids(tokenizer, ["a cat"])
        assert ids.shape == (1, 50) and form.num_marks(tokenizer) == 39 and form.num_words(tokenizer, "a cat") == 2
        assert (ids[0] == tokenizer.pad_token_id).nonzero().flatten().tolist() == list(filled)
        assert (~form.filling(tokenizer, ids)[0]).nonzero().flatten().tolist() == [34, 35]
    (cut,) = within.ids(tokenizer, ["cat " * 40])
    assert cut[-5:].tolist() == tokenizer(within.behind).input_ids
    assert (~within.filling(tokenizer, cut[None])).sum() == 50 - 39


def test_autoencoder():
    """Pictures and latents are those of diffusers' pipelines: one frame, a mean and a deviation for each channel."""
    torch.manual_seed(0)
    network = build_video_autoencoder().eval()
    autoencoder, pixels = FrameAutoencoder(network), torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        means = network.encode(pixels[:, :, None]).latent_dist.mean[:, :, 0]
        latents = autoencoder.encode(pixels)
        mean, deviation = (
            torch.tensor(network.config[name])[:, None, None] for name in ("latents_mean", "latents_std")
        )
        assert latents.shape == (2, 4, 4, 4) and torch.equal(latents, (means - mean) / deviation)
        torch.testing.assert_close(autoencoder.decode(latents), network.decode(means[:, :, None]).sample[:, :, 0])
    assert autoencoder.encoding().keys() == {"encoder", "quant_conv"}
    assert autoencoder.scaling() == [[-0.7, 0.1, 0.4, -0.2], [2.8, 1.4, 2.3, 1.2]]
    assert (autoencoder.pixels_per_latent, autoencoder.sample_side) == (4, 32)
    assert FrameAutoencoder(build_video_autoencoder(side=0)).sample_side == 1024


def test_autoencoders_that_pictures_cannot_go_through():
    config = dict(build_video_autoencoder().config)
    check_frames(config)
    with pytest.raises(BaseModelError, match=r"vae temperal_downsample is \[False\]; allowed are 2 values"):
        check_frames(config | {"temperal_downsample": [False]})
    with pytest.raises(BaseModelError, match="vae input_channels is 4; allowed is 3, for red, green and blue"):
        check_frames(config | {"input_channels": 4})


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a (red:1.3) cat", "has weights or BREAK, which base 'pipeline' does not read"),
        ("a cat BREAK a dog", "has weights or BREAK, which base 'pipeline' does not read"),
        ("cat " * 40, "has 43 tokens, base 'pipeline' reads at most 33"),
    ],
)
def test_prompts_that_are_not_read(base, prompt, message):
    with pytest.raises(PromptError, match=message):
        generate(base, prompt, num_inference_steps=1)


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


def test_resolutions(base):
    with pytest.raises(ConfigurationError, match="resolution is 36; allowed are multiples of 8"):
        base.family.use_resolution(36)
    base.family.use_resolution(16)
    try:
        assert generate(base, "a cat", num_inference_steps=1)[0].size == (16, 16)
    finally:
        base.family.use_resolution(None)
    assert base.family.resolution == 32


def _setting(component: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _class(component: str, library: str, name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), component: [library, name]}))

    return change


def _words_removed(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "assistant"]
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_class("scheduler", "diffusers", "DDIMScheduler"), "scheduler is a DDIMScheduler; allowed is FlowMatchEuler"),
        (_class("text_encoder", "transformers", "CLIPTextModel"), "text_encoder is a CLIPTextModel, allowed are Qwen"),
        (_class("vae", "diffusers", "AutoencoderKL"), "vae is a AutoencoderKL, allowed are AutoencoderKLQwenImage"),
        (
            _class("transformer", "diffusers", "FluxTransformer2DModel"),
            "transformer is a FluxTransformer2DModel, allow",
        ),
        (_setting("scheduler", num_train_timesteps=500), "scheduler num_train_timesteps is 500; allowed is 1000"),
        (_setting("vae", latents_mean=[0.0]), r"vae latents_mean is \[0.0\]; allowed are 4 numbers, as z_dim is"),
        (_setting("vae", latents_std=[1.0, 0.0, 1.0, 1.0]), "vae latents_std is .*; allowed are numbers above 0"),
        (_setting("vae", sample_size=30), "vae sample_size is 30; allowed are multiples of 4"),
        (_setting("vae", latents_std="wide"), "vae latents_std is 'wide'; allowed are 4 numbers, as z_dim is"),
        (_words_removed, "tokenizer makes 34 and 13 tokens of the template .*; allowed are 34 and 5"),
    ],
)
def test_folders_whose_parts_do_not_fit(
    base: Base, folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:

    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(BaseModelError, match=message):
        load_base(copy)
