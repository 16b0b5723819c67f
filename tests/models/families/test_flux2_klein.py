"""FLUX.2 Klein on a pico pipeline of its exact classes; what it shares with Z-Image is in test_chat_templates.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from diffusers.configuration_utils import FrozenDict

from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.autoencoders import NormalizedAutoencoder
from orthoplex.models.families.flux2_klein import Flux2Klein, _places
from tests.pico_qwen import LENGTH, build_klein


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_klein(tmp_path_factory.mktemp("klein") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Flux2KleinPipeline:
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_picture(pipeline: Flux2KleinPipeline, **options: Any) -> np.ndarray:
    """The picture of diffusers' pipeline."""
    (picture,) = pipeline(
        prompt="a red cat",
        latents=torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(3)),
        num_inference_steps=3,
        height=32,
        width=32,
        max_sequence_length=LENGTH,
        output_type="np",
        **options,
    ).images
    return (picture * 255).round()


def test_negative_prompts(base, pipeline):
    """Pictures are those of diffusers' pipeline, which takes the features of a negative prompt."""
    options: dict[str, Any] = {"seed": 3, "num_inference_steps": 3, "guidance_scale": 3.0}
    (ours,) = generate(base, "a red cat", negative_prompt="a blue dog", **options)
    with torch.no_grad():
        negative = base.family.condition(["a blue dog"]).features
    assert np.array_equal(np.asarray(ours), own_picture(pipeline, guidance_scale=3.0, negative_prompt_embeds=negative))
    assert not np.array_equal(np.asarray(ours), np.asarray(generate(base, "a red cat", **options)[0]))


def test_a_distilled_base_follows_no_guidance(tmp_path):
    folder = build_klein(tmp_path / "distilled", distilled=True)
    base = load_base(folder)
    weak, strong = (
        np.asarray(generate(base, "a red cat", seed=3, num_inference_steps=3, guidance_scale=scale)[0])
        for scale in (1.0, 9.0)
    )
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert np.array_equal(weak, strong) and np.array_equal(weak, own_picture(pipeline, guidance_scale=1.0))
    with pytest.raises(ConfigurationError, match="guidance is trained into it; allowed is none"):
        generate(base, "a cat", negative_prompt="a dog", num_inference_steps=2)
    written = base.save(tmp_path / "written")
    assert json.loads((written / "model_index.json").read_text())["is_distilled"] is True
    path = written / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_distilled": "no"}))
    with pytest.raises(BaseModelError, match="is_distilled is 'no'; allowed are true and false"):
        load_base(written)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autoencoder(pipeline, dtype):
    """Pictures and latents are those of the pipeline: squares of positions, normalized by stored statistics."""
    network = pipeline.vae.to(dtype)
    autoencoder = NormalizedAutoencoder(network)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = autoencoder.encode(pixels)
        assert torch.equal(latents, pipeline._encode_vae_image(pixels.to(dtype), None).float())
        assert latents.shape == (2, 16, 2, 2) and latents.dtype == torch.float32
        made, means = autoencoder.decode(latents), network.encode(pixels.to(dtype)).latent_dist.mean
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(made, network.decode(means).sample, rtol=tolerance, atol=tolerance)
    assert autoencoder.encoding().keys() == {"encoder", "quant_conv"} and autoencoder.pixels_per_latent == 8
    mean, variance, eps = autoencoder.scaling()
    assert (len(mean), len(variance), eps) == (16, 16, 1e-4)
    pipeline.vae.to(torch.float32)


def test_places(pipeline):
    """Positions of text and picture are those of the pipeline, four numbers each."""
    assert torch.equal(_places(1, 1, 5, 2, torch.device("cpu")), pipeline._prepare_text_ids(torch.zeros(2, 5, 3)))
    ours = _places(2, 3, 1, 2, torch.device("cpu"))
    assert torch.equal(ours, pipeline._prepare_latent_ids(torch.zeros(2, 16, 2, 3)))
    assert ours[0].tolist()[:4] == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 2, 0], [0, 1, 0, 0]]


def test_shift(base):
    """Larger pictures are shifted more; more steps less, up to 4300 tokens."""
    shift = base.family.shift
    assert shift(64, 64, 4) > shift(32, 32, 4) > shift(32, 32, 50)
    assert shift(70, 70, 4) == shift(70, 70, 50) == pytest.approx(0.00016927 * 4900 + 0.45666666)


def test_what_layers_see(base):
    sees = {name.removeprefix("transformer."): layer.sees for name, layer in base.family.layers("linear").items()}
    assert sees["transformer_blocks.0.attn.to_q"] == sees["transformer_blocks.0.ff.linear_in"] == "picture"
    assert sees["transformer_blocks.0.attn.add_q_proj"] == sees["transformer_blocks.0.ff_context.linear_in"] == "both"
    assert sees["single_transformer_blocks.0.attn.to_qkv_mlp_proj"] == "both"
    assert not any("embedder" in name or "modulation" in name or "norm_out" in name for name in sees)
    assert base.family.table.sees("transformer.context_embedder") == "text" and base.family.passes_features


@pytest.mark.parametrize(("width", "version"), [(48, "4b"), (7680, "4b"), (12288, "9b")])
def test_versions(base, monkeypatch, width, version):
    _change(monkeypatch, base.pipeline.transformer, {"joint_attention_dim": width})
    assert Flux2Klein.version(base.pipeline) == f"flux2-klein-{version}"


@pytest.mark.parametrize(
    ("component", "values", "message"),
    [
        ("transformer", {"in_channels": 8}, "transformer in_channels is 8; allowed is 16, of squares of the vae's lat"),
        ("transformer", {"out_channels": 8}, "transformer out_channels is 8; allowed is 16, of squares of the vae's l"),
        ("transformer", {"patch_size": 2}, "transformer patch_size is 2; allowed is 1, of positions of the latents"),
        (
            "transformer",
            {"joint_attention_dim": 16},
            "joint_attention_dim is 16; allowed is 48, of 3 states of the tex",
        ),
        ("transformer", {"axes_dims_rope": (4, 4, 4)}, "attention_head_dim is 16; allowed is 12, of the sum of axes_d"),
        ("vae", {"sample_size": 36}, "vae sample_size is 36; allowed are multiples of 8"),
        ("vae", {"in_channels": 4}, "vae in_channels is 4; allowed is 3, of red, green and blue"),
        ("vae", {"patch_size": (1, 1)}, r"vae patch_size is \[1, 1\]; allowed is \[2, 2\]"),
    ],
)
def test_networks_that_do_not_fit(base, monkeypatch, component, values, message):
    _change(monkeypatch, base.pipeline.components[component], values)
    with pytest.raises(BaseModelError, match=message):
        Flux2Klein.check(base.pipeline)


def test_a_tokenizer_without_a_template(base, monkeypatch):
    monkeypatch.setattr(base.pipeline.tokenizer, "chat_template", None)
    with pytest.raises(BaseModelError, match="tokenizer makes no chat of a prompt, as the base needs"):
        Flux2Klein.check(base.pipeline)


def test_a_language_model_with_too_few_layers(base, monkeypatch):
    monkeypatch.setattr(base.pipeline.text_encoder.config, "num_hidden_layers", 20)
    with pytest.raises(BaseModelError, match="num_hidden_layers is 20; allowed are 27 or more, as .* layers 9, 18, 27"):
        Flux2Klein.check(base.pipeline)


def _change(monkeypatch: pytest.MonkeyPatch, network: Any, values: dict[str, Any]) -> None:
    """Let a network's configuration say something else, until the test ends."""
    monkeypatch.setattr(network, "_internal_dict", FrozenDict({**network.config, **values}))
