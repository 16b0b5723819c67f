"""Krea 2 on a pico pipeline of its exact classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Krea2Pipeline
from safetensors.torch import save_file

from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.packing import packed, places, unpacked
from tests.pico import tokens_of
from tests.pico_qwen_image import LENGTH, build_krea2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_krea2(tmp_path_factory.mktemp("krea2") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


def own_pictures(folder: Path, *seeds: int, file: Path | None = None, **options: Any) -> np.ndarray:
    """The pictures of diffusers' pipeline, from noise of these seeds."""
    pipeline = Krea2Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if file is not None:
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    noise = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    made = pipeline(
        latents=packed(torch.cat(noise)),
        num_images_per_prompt=len(seeds),
        num_inference_steps=3,
        height=32,
        width=32,
        max_sequence_length=LENGTH - 34,
        output_type="np",
        **options,
    )
    return (made.images * 255).round()


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.5])
def test_generate(base, folder, scale):
    """Pictures are those of diffusers' pipeline but for rounding: what fills up is left out here, and masked there."""
    options = {"num_inference_steps": 3, "guidance_scale": scale, "negative_prompt": "a blue dog at night"}
    ours = generate(base, "a red cat", seed=3, num_images=2, **options)
    theirs = own_pictures(
        folder, 3, 4, prompt="a red cat", negative_prompt=options["negative_prompt"], guidance_scale=scale
    )
    assert np.abs(np.stack([np.asarray(picture) for picture in ours]) - theirs).max() <= 1
    assert not np.array_equal(theirs[0], theirs[1])


def test_a_distilled_base_has_one_shift_and_no_guidance(base, tmp_path):
    folder = build_krea2(tmp_path / "turbo", distilled=True)
    distilled = load_base(folder)
    assert distilled.family.shift(8, 8, 4) == distilled.family.shift(64, 64, 4) == 1.15 > base.family.shift(8, 8, 4)
    ours = generate(distilled, "a red cat", seed=3, num_inference_steps=3, guidance_scale=4.5)[0]
    theirs = own_pictures(folder, 3, prompt="a red cat", guidance_scale=0.0)[0]
    assert np.abs(np.asarray(ours) - theirs).max() <= 1
    with pytest.raises(ConfigurationError, match="guidance is trained into it; allowed is none"):
        generate(distilled, "a cat", negative_prompt="a dog", num_inference_steps=2)
    index = json.loads((distilled.save(tmp_path / "written") / "model_index.json").read_text())
    assert (index["is_distilled"], index["text_encoder_select_layers"], index["patch_size"]) == (True, [0, 2, 3], 2)


def test_filling_is_not_seen(base):
    """Prompts of different lengths in one batch give what each gives alone, and what all positions under masks give."""
    family, noise = base.family, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([300.0, 800.0])
    texts = ["a cat", "a photo of a dog in a forest at night"]
    with torch.no_grad():
        both = family.condition(texts)
        together = family.predict(noise, times, both)
        whole = family.pipeline.transformer(
            hidden_states=packed(noise),
            encoder_hidden_states=both.features.unflatten(2, (3, 16)),
            timestep=times / 1000,
            position_ids=torch.cat([torch.zeros(LENGTH - 34, 3), places(8, 8, noise)]),
            encoder_attention_mask=both.mask,
        ).sample
        torch.testing.assert_close(together, unpacked(whole, 8, 8), rtol=1e-4, atol=1e-5)
        for place, text in enumerate(texts):
            alone = family.predict(noise[place : place + 1], times[place], family.condition([text]))
            torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-5)
    assert both.features.shape == (2, LENGTH - 34, 3 * 16) and both.mask.sum(1).tolist() == [7, 15]
    assert both.mask[0].tolist() == [True] * 2 + [False] * 31 + [True] * 5


def test_text_is_gathered_in_its_order():
    features = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]).unsqueeze(2)
    gathered = Conditioning(features, mask=features.squeeze(2) > 0).gathered()
    assert gathered.features.squeeze(2).tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert gathered.mask.tolist() == [[True, True], [True, False]]
    assert Conditioning(features).gathered().features.shape == (2, 3, 1)


def test_a_token_stands_where_it_is_written(base):
    family = base.family
    with base.with_tokens(tokens_of({"<anna>": torch.full((16,), 0.5)})):
        ids = family.words.ids(["a <anna> cat"])
        (places_of_token,) = family.words.places(ids, ["<anna>"])[0].nonzero(as_tuple=True)[-1:]
        assert ids.shape == (1, LENGTH)
        assert not family.words.filling(ids)[0, places_of_token].any()
        words = (~family.words.filling(ids)[0]).nonzero().flatten().tolist()
        assert places_of_token.item() in words and max(words) < 10
        states = family.condition(ids).features[0, places_of_token, :16]  # the first chosen states are the embeddings
        assert torch.equal(states, torch.full((1, 16), 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_encoder_select_layers": [0, 2, 9]}, "text_encoder_select_layers has 9; allowed are 0 to 3"),
        ({"text_encoder_select_layers": [1, 2]}, "transformer num_text_layers is 3; allowed is 2"),
        ({"text_encoder_select_layers": "all"}, "text_encoder_select_layers is 'all'; allowed are numbers of layers"),
        ({"is_distilled": "no"}, "is_distilled is 'no'; allowed are true and false"),
        ({"patch_size": 1}, "transformer in_channels is 16; allowed is 4"),
        ({"patch_size": 0}, "patch_size is 0; allowed are whole numbers from 1 on"),
    ],
)
def test_settings_that_do_not_fit(folder, tmp_path, settings, message):
    copy = tmp_path / "copy"
    copy.mkdir()
    for item in folder.iterdir():
        (copy / item.name).symlink_to(item)
    (copy / "model_index.json").unlink()
    index = json.loads((folder / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, **settings}))
    with pytest.raises(BaseModelError, match=message):
        load_base(copy)


def test_a_foreign_file_folds_as_diffusers_reads_it(base, folder, tmp_path):
    """A file in diffusers' names, drawn by both."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in base.family.layers("linear").items():
        down = torch.randn(2, layer.linear.in_features, generator=generator) / 4
        up = torch.randn(layer.linear.out_features, 2, generator=generator) / 4
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    concept = foreign_concept(read_lora(tmp_path / "lora.safetensors", family="krea2"), base.identity)
    options = {"seed": 1, "num_inference_steps": 3, "guidance_scale": 0.0}
    ours, plain = (np.asarray(generate(base, "a cat", merge=change, **options)[0]) for change in (concept, None))
    (theirs,) = own_pictures(folder, 1, prompt="a cat", guidance_scale=0.0, file=tmp_path / "lora.safetensors")
    assert np.abs(ours - theirs).max() <= 1  # added to the output there, to the weights here
    assert np.abs(ours.astype(int) - plain).max() > 1
