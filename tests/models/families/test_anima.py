"""Anima on a pico pipeline of its exact classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimaModularPipeline, ModularPipeline
from diffusers.guiders import ClassifierFreeGuidance
from safetensors.torch import save_file
from torch import Tensor

from orthoplex.activations.foreign_inputs import position_weights
from orthoplex.concepts import Token, load_concept
from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.concepts.tokens.keys_values import KeysValues
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import BaseModelError, PromptError
from orthoplex.files import without_warnings
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train
from tests.pico_anima import build_anima
from tests.pico_flow import MAX_LENGTH
from tests.training.conftest import write_pictures

WIDTHS = {"text_encoder": 24, "text_conditioner": 32}
LAYERS = ("transformer.transformer_blocks.0.attn2", "transformer.transformer_blocks.1.attn2")
TEXT = "a <anna> cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_anima(tmp_path_factory.mktemp("anima") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


def own_pipeline(folder: Path) -> AnimaModularPipeline:
    """The pipeline of diffusers."""
    with without_warnings():
        pipeline = ModularPipeline.from_pretrained(str(folder))
        pipeline.load_components()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_pictures(pipeline: AnimaModularPipeline, scale: float, *seeds: int, **options: Any) -> np.ndarray:
    """The pictures of diffusers' pipeline, from noise of these seeds."""
    noise = [torch.randn(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    pipeline.update_components(guider=ClassifierFreeGuidance(guidance_scale=scale))
    with without_warnings():
        images = pipeline(
            latents=torch.cat(noise),
            num_images_per_prompt=len(seeds),
            num_inference_steps=3,
            height=32,
            width=32,
            output="images",
            output_type="np",
            **options,
        )
    return (images * 255).round()


def drawn(base: Base, prompt: str, **options: Any) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in generate(base, prompt, num_inference_steps=3, **options)])


def vectors(rows: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=generator) for name, width in WIDTHS.items()}


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("negative", ["", "a blue dog at night"])
def test_generate(base, folder, scale, negative):
    """Pictures are those of diffusers' pipeline, bit for bit."""
    ours = drawn(base, "a red cat", seed=3, num_images=2, guidance_scale=scale, negative_prompt=negative)
    theirs = own_pictures(own_pipeline(folder), scale, 3, 4, prompt="a red cat", negative_prompt=negative)
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(theirs[0], theirs[1])


def test_a_written_folder_names_no_place(base, tmp_path):
    """Wherever it is moved, diffusers reads it by the index of modular pipelines, all others by the usual one."""
    moved = base.save(tmp_path / "written").rename(tmp_path / "moved")
    usual, modular = (json.loads((moved / f"{name}model_index.json").read_text()) for name in ("", "modular_"))
    assert usual["text_conditioner"] == modular["text_conditioner"][:2] == ["diffusers", "AnimaTextConditioner"]
    assert usual["_class_name"] == modular["_class_name"] == "AnimaModularPipeline"
    assert str(tmp_path) not in (moved / "modular_model_index.json").read_text()
    assert np.array_equal(
        drawn(base, "a cat", guidance_scale=1.0), own_pictures(own_pipeline(moved), 1.0, 0, prompt="a cat")
    )
    (moved / "model_index.json").unlink()
    assert load_base(moved).identity.hash == base.identity.hash


def test_tokens_are_words_of_both_readers(base, tmp_path):
    """A folder with more of them than the conditioner's embedding had rows for is read by diffusers as it is here."""
    names = ["<anna>", *(f"<anna>_{number}" for number in range(1, 5))]
    tokens = {
        name: Vector({encoder: values[0] for encoder, values in vectors(1, seed=place).items()})
        for place, name in enumerate(names)
    }
    size = base.pipeline.text_conditioner.config.target_vocab_size
    with base.with_tokens(tokens):
        ours, plain = drawn(base, "a <anna> cat", guidance_scale=1.0), drawn(base, "a cat", guidance_scale=1.0)
        written = base.save(tmp_path / "written")
    assert base.pipeline.text_conditioner.config.target_vocab_size == size
    again = load_base(written)
    assert again.tokens == tuple(sorted(names)) and np.array_equal(
        drawn(again, "a <anna> cat", guidance_scale=1.0), ours
    )
    theirs = own_pictures(own_pipeline(written), 1.0, 0, prompt=f"a {' '.join(names)} cat")
    assert np.array_equal(ours, theirs) and not np.array_equal(ours, plain)


def test_prompts_of_different_lengths(base):
    """In one batch they give what each gives alone; behind the words all is zero."""
    texts = ["", "a cat", "a photo of a dog in a forest at night"]
    with torch.no_grad():
        together = base.family.condition(texts).features
        alone = torch.cat([base.family.condition([text]).features for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.shape == (3, MAX_LENGTH, 32) and together.isfinite().all() and not together[1, 10:].any()


def test_what_layers_see(base):
    """Cross-attention reads the text alone."""
    sees = {name: layer.sees for name, layer in base.family.layers("cross-attention").items()}
    assert {name.removeprefix(f"{LAYERS[0]}."): kind for name, kind in sees.items() if name.startswith(LAYERS[0])} == {
        "to_q": "picture", "to_k": "text", "to_v": "text", "to_out.0": "picture",
    }  # fmt: skip
    assert base.family.feature_layers().keys() == base.family.layers("cross-attention-kv").keys()
    both = base.family.layers("attention", text_encoder=True)
    assert both["text_conditioner.blocks.1.cross_attn.k_proj"].sees == "text"
    assert tuple(base.family.cross_attention()) == LAYERS


def test_layers_read_vectors_of_their_own(base):
    """Every layer reads what both text networks make of its own vector."""
    rows = vectors(2, seed=0)
    token = LayerVectors(rows, LAYERS)
    family = base.family
    with torch.no_grad():
        with base.with_tokens({"<anna>": token}):
            wide = family.condition([TEXT, "a dog"]).features
            own = base.own_features(wide)
        for layer, features in enumerate(own):
            row = {name: values[layer] for name, values in rows.items()}
            with base.with_tokens({"<anna>": Vector(row)}):
                torch.testing.assert_close(features, family.condition([TEXT, "a dog"]).features, rtol=1e-4, atol=1e-5)
    assert wide.shape[2] == 2 * 32 and not torch.allclose(own[0][0], own[1][0])


def test_keys_and_values_are_added_where_the_token_stands(base):
    """To the projections of every layer, at T5's position of the token."""
    generator = torch.Generator().manual_seed(1)
    added = {layer: torch.randn(2, 32, generator=generator) for layer in LAYERS}
    row = {name: values[0] for name, values in vectors(1, seed=2).items()}
    family, seen, outputs = base.family, dict[str, Tensor](), {}
    noise = torch.randn(1, 4, 8, 8, generator=generator)

    def predict(token: Token) -> Tensor:
        with torch.no_grad(), base.with_tokens({"<anna>": token}):
            handles = [
                module.to_k.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
                for name, module in family.cross_attention().items()
            ]
            prediction = family.predict(noise, torch.tensor(500.0), family.condition([TEXT]))
            for handle in handles:
                handle.remove()
            outputs[token.kind] = dict(seen)
            return prediction

    assert not torch.allclose(predict(Vector(row)), predict(KeysValues(row, added)))
    plain, marked = (outputs[kind] for kind in (Vector(row).kind, KeysValues(row, added).kind))
    difference = marked[LAYERS[0]] - plain[LAYERS[0]]
    (place,) = difference[0].abs().sum(1).nonzero().flatten().tolist()
    torch.testing.assert_close(difference[0, place], added[LAYERS[0]][0], rtol=1e-4, atol=1e-5)


def test_every_layer_of_the_conditioner_weighs_the_positions_that_it_sees(base):
    """Its cross-attention's keys and values have those of the language model, all others those of T5."""
    layers = base.family.layers("attention", text_encoder=True)
    of_text = {name: layer.linear for name, layer in layers.items() if name.startswith("text_conditioner")}
    tokens = {"<anna>": Vector({encoder: values[0] for encoder, values in vectors(1, seed=0).items()})}
    seen = {}
    with base.with_tokens(tokens) as names, torch.no_grad():
        ids = base.family.words.ids(["dog", "a photo of <anna> dog at night"])
        for name, linear in of_text.items():
            linear.register_forward_pre_hook(lambda _, given, name=name: seen.setdefault(name, given[0]))
        base.family.condition(ids)
        for linear in of_text.values():
            linear._forward_pre_hooks.clear()
        counts = {}
        for name in of_text:
            encoder = base.family.reader_of(name)
            weights = position_weights(base, ids, names, encoder)
            assert weights.of_inputs(name, seen[name]).shape == seen[name].shape[:2]
            counts[encoder] = int((~weights.filling[0]).sum())
            words = base.family.words.apart(ids)[encoder]
            (place,) = (words[1] == base.family.words._readers[encoder].ids_of(names)[0]).nonzero().flatten().tolist()
            assert weights.weights[1, place] == weights.weights[1].max()
            assert name.endswith(("cross_attn.k_proj", "cross_attn.v_proj")) == (encoder == "text_encoder")
    assert counts == {"text_encoder": 3, "text_conditioner": 1}  # tokens of "dog"


@pytest.mark.parametrize("kind", [pytest.param("layer-wise", marks=pytest.mark.slow), "keys-and-values"])
def test_train_with_the_conditioner(base, tmp_path, kind):
    """With every kind of tokens; the conditioner's layers are those of a text encoder."""
    pictures = write_pictures(tmp_path / "pictures", 2)
    data = ConceptDataset.from_folder(
        pictures, resolution=base.family.resolution, token="<anna>", class_word="person", kind="person"
    )
    few = {"steps": 2, "batch_size": 2, "slots": 4, "erasure_prompts": 8, "prior_pictures": 2, "warmup": 1}
    quick = {"prior_inference_steps": 1, "mixed_precision": "no", "thumbnail": "none", "token_vectors": kind}
    quick |= {"text_encoder": True, "method": "lora", "rank": 2}
    config = TrainingConfig.from_mapping({**few, **quick}, defaults=base.training_defaults)
    output = tmp_path / "anna.safetensors"
    for _ in train(base, data, config, output=output, foreign_prompts=("a cat", "a red car at night")):
        pass
    concept = load_concept(output)
    assert concept.layers.keys() == base.family.layers("cross-attention-kv", text_encoder=True).keys()
    assert {name.partition(".")[0] for name in concept.layers} == {"transformer", "text_conditioner"}
    loud, tokens_alone = merge([(concept, 40.0)]), replace(concept, layers={}, inputs=None)
    pictures = [drawn(base, "a <anna> person", merge=change) for change in (loud, tokens_alone)]
    assert not np.array_equal(*pictures) and not base.tokens


def foreign_file(base: Base, folder: Path, style: str) -> Path:
    """The same change of all attention, the conditioner's too, in the names of another program."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    originals = {module.layers[0]: name for name, module in base.family.table.original_modules("anima").items()}
    for name, layer in base.family.layers("attention", text_encoder=True).items():
        down = torch.randn(2, layer.linear.in_features, generator=generator) / 4
        up = torch.randn(layer.linear.out_features, 2, generator=generator) / 4
        names = {
            "diffusers": name,
            "comfy": f"diffusion_model.{originals[name]}",
            "kohya": "lora_unet_" + originals[name].replace(".", "_"),
        }
        ends = {"lora_A.weight": down, "lora_B.weight": up}
        if style == "kohya":
            ends = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)}
        tensors |= {f"{names[style]}.{end}": values for end, values in ends.items()}
    save_file(tensors, folder / f"{style}.safetensors")
    return folder / f"{style}.safetensors"


def test_foreign_files_fold_as_diffusers_reads_them(base, folder, tmp_path):
    """In three programs' names; diffusers reads two of them, and nothing of kohya's."""
    files = [foreign_file(base, tmp_path, style) for style in ("diffusers", "comfy", "kohya")]
    changes = [foreign_concept(read_lora(file, family="anima"), base.identity) for file in files]
    ours = [drawn(base, "a cat", merge=change, guidance_scale=1.0)[0] for change in changes]
    plain = drawn(base, "a cat", guidance_scale=1.0)[0]
    assert all(np.array_equal(picture, ours[0]) for picture in ours)
    assert np.abs(ours[0].astype(int) - plain).max() > 1
    pipeline = own_pipeline(folder)
    for file in files[:2]:
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
        (theirs,) = own_pictures(pipeline, 1.0, 0, prompt="a cat")
        assert np.abs(ours[0] - theirs).max() <= 1  # added to the output there, to the weights here
        pipeline.unload_lora_weights()


def test_weights_in_prompts_are_refused(base):
    with pytest.raises(PromptError, match=r"has weights or BREAK, which base 'pipeline' does not read"):
        drawn(base, "a (red:1.3) cat")


@pytest.mark.parametrize(
    ("part", "setting", "value", "message"),
    [
        ("scheduler", "use_dynamic_shifting", True, "scheduler use_dynamic_shifting is True; allowed is False"),
        ("scheduler", "num_train_timesteps", 500, "scheduler num_train_timesteps is 500; allowed is 1000"),
        ("text_conditioner", "min_sequence_length", 600, "min_sequence_length is 600; allowed are 2 to 512"),
        ("transformer", "patch_size", [2, 2, 1], r"transformer patch_size is .2, 2, 1.; allowed is \(1, 2, 2\)"),
        ("vae", "latents_std", [1, 1, 1, 0], "vae latents_std is .*; allowed are numbers above 0"),
    ],
)
def test_parts_that_do_not_belong_together(folder, tmp_path, part, setting, value, message):
    written = shutil.copytree(folder, tmp_path / "pipeline")
    path = written / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(BaseModelError, match=message):
        load_base(written)
