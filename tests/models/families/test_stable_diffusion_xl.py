"""Stable Diffusion XL as a family: two text encoders, added conditions, and pictures as diffusers makes them."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline

from orthoplex.activations import observed_inputs
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import BaseModelError
from orthoplex.merging import merge
from orthoplex.models import ItemSizes, PictureRequest, finished, hash_cache, load_base, on_base, read_prompt
from orthoplex.models.base_files import BaseFiles
from tests.pico import MAX_LENGTH
from tests.pico_xl import POOLED_WIDTH, WIDTHS, build_pico_xl, make_concept_xl

PROMPTS = ["a cat", "a red car"]
WITH_ANNA = ["a photo of <anna>", "a red car"]


@pytest.fixture(autouse=True)
def new_files_are_remembered(monkeypatch):
    monkeypatch.setattr(hash_cache, "_RACE_NS", 0)


@pytest.fixture
def base(pico_xl_folder):
    """A base of its own, whose pipeline a test may change."""
    return load_base(pico_xl_folder)


def drawn(base, prompts=PROMPTS, **options):
    request = PictureRequest(prompts, torch.Generator().manual_seed(3), 2, **{"guidance_scale": 4.0, **options})
    with base.locked():
        return finished(base.family.picture(request)).pixels


def drawn_by_diffusers(base, prompts=PROMPTS, **options):
    settings = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "np", **options}
    return copy.copy(base.pipeline)(prompts, generator=torch.Generator().manual_seed(3), **settings).images


@pytest.mark.parametrize(
    ("tokens", "guidance_scale", "negative", "scheduler", "settings"),
    [
        (None, 4.0, "", EulerDiscreteScheduler, {}),
        (None, 1.0, "", DDIMScheduler, {}),
        ("shared", 4.0, "dog", DDIMScheduler, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        ("layerwise", 4.0, "", DDIMScheduler, {}),
        ("keys-values", 4.0, "dog", EulerDiscreteScheduler, {"prediction_type": "v_prediction"}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' own schedulers
def test_pictures_are_those_of_diffusers_bit_for_bit(base, tokens, guidance_scale, negative, scheduler, settings):
    base.pipeline.scheduler = scheduler.from_config(base.pipeline.scheduler.config, **settings)
    plain = drawn(base, guidance_scale=guidance_scale)
    if tokens is not None:
        base.fold(make_concept_xl(base, tokens=tokens))
    prompts = PROMPTS if tokens is None else WITH_ANNA
    ours = drawn(base, prompts, guidance_scale=guidance_scale, negative_prompt=negative, pictures_per_prompt=2)
    given = {"negative_prompt": [negative] * 2} if negative else {}  # none is an empty one that is zeros
    theirs = drawn_by_diffusers(base, prompts, num_images_per_prompt=2, guidance_scale=guidance_scale, **given)
    assert np.array_equal(ours, theirs)
    assert tokens is None or not np.allclose(ours[::2], plain, atol=1e-2)


def test_an_empty_negative_prompt_is_read_where_the_base_says_so(base):
    zeros = drawn(base)
    base.pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    read = drawn(base)
    assert np.array_equal(read, drawn_by_diffusers(base)) and not np.array_equal(read, zeros)
    base.pipeline.register_to_config(force_zeros_for_empty_prompt=True)
    assert np.array_equal(drawn(base), zeros)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:.*upcast_vae:FutureWarning")  # diffusers warns of its own call
def test_a_narrow_autoencoder_works_as_diffusers_lets_it(pico_xl_folder, dtype):
    base = load_base(pico_xl_folder, dtype=dtype)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    decoded = base.family.pixels(latents)
    assert decoded.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    assert base.pipeline.vae.dtype == dtype
    pixels = torch.zeros(1, 3, 32, 32)
    assert base.family.latents(pixels).isfinite().all() and base.pipeline.vae.dtype == dtype
    assert np.array_equal(drawn(base), drawn_by_diffusers(base))


def test_conditions_are_features_side_by_side_a_projection_and_sizes(pico_xl):
    family = pico_xl.family
    every = family.condition(PROMPTS)
    assert every.features.shape == (2, MAX_LENGTH, sum(WIDTHS.values()))
    assert every.extras["pooled"].shape == (2, POOLED_WIDTH)
    assert every.extras["sizes"].tolist() == [[32, 32, 0, 0, 32, 32]] * 2
    again = family.condition(family.words.ids(PROMPTS))
    assert torch.equal(again.features, every.features) and torch.equal(again.extras["pooled"], every.extras["pooled"])
    sizes = [ItemSizes((40, 36), (2, 1), (32, 24)), ItemSizes.whole(8, 16)]
    assert family.with_sizes(every, sizes).extras["sizes"].tolist() == [[40, 36, 2, 1, 32, 24], [8, 16, 0, 0, 8, 16]]
    noisy, times = torch.ones(2, 4, 8, 8), torch.tensor([5, 500])
    plain = family.predict(noisy, times, every)
    assert not torch.equal(family.predict(noisy, times, family.with_sizes(every, sizes)), plain)


def test_a_family_without_sizes_ignores_them(pico):
    every = pico.family.condition(PROMPTS)
    assert pico.family.with_sizes(every, [ItemSizes.whole(32, 32)] * 2) is every


def test_layers_see_what_the_table_says(pico_xl):
    seen = {}
    linears = pico_xl.family.every_layer()
    with observed_inputs(linears, lambda layer, _, x: seen.update({layer: x.shape})):
        drawn(pico_xl, guidance_scale=1.0)
    assert seen.keys() == linears.keys()
    for layer, shape in seen.items():
        sees = pico_xl.family.table.sees(layer)
        if layer != "text_encoder_2.text_projection":  # one row a prompt
            assert (shape[1] == MAX_LENGTH and len(shape) == 3) == (sees == "text"), layer
            assert (len(shape) == 2) == (sees == "time"), layer
    chosen = pico_xl.family.layers("cross-attention-kv", text_encoder=True)
    encoders = {name.partition(".")[0] for name in chosen}
    assert encoders == {"unet", *WIDTHS} and all(layer.sees == "text" for layer in chosen.values())
    assert all(name.split(".")[1] == "text_model" for name in chosen if name.startswith("text_encoder"))


@pytest.mark.parametrize(
    ("dtype", "tokens"),
    [(torch.float32, "layerwise"), (torch.float16, "shared"), (torch.bfloat16, "keys-values")],
)
def test_folding_is_undone_bit_for_bit(pico_xl_folder, dtype, tokens):
    base = load_base(pico_xl_folder, dtype=dtype)
    before = {key: value.clone() for key, value in states(base).items()}
    prompts = base.family.condition(PROMPTS)
    with base.folded(make_concept_xl(base, num_vectors=2, tokens=tokens)):
        inside = states(base)
        assert all(reader.added == {"<anna>", "<anna>_1"} for reader in base.family.readers)
        changed = {name.partition(".")[0] for name, value in before.items() if not torch.equal(inside[name], value)}
        assert changed == {"unet", *WIDTHS}
    after = states(base)
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    again = base.family.condition(PROMPTS)
    assert torch.equal(again.features, prompts.features)


def states(base):
    return {
        f"{component}.{name}": value
        for component, network in base.family.components().items()
        for name, value in network.state_dict().items()
    }


def test_versions_tell_what_is_predicted(base):
    assert base.identity.family == "sdxl"
    base.pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    assert base.family.version(base.pipeline) == "sdxl-v"
    assert base.training_defaults == {"steps": 500, "batch_size": 2, "num_inference_steps": 30, "guidance_scale": 6.0}


def test_weights_are_read_as_compel_reads_them(pico_xl):
    compel = pytest.importorskip("compel.embeddings_provider")
    kind = compel.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    pipeline = pico_xl.pipeline
    provider = compel.EmbeddingsProviderMulti(
        [pipeline.tokenizer, pipeline.tokenizer_2],
        [pipeline.text_encoder, pipeline.text_encoder_2],
        returned_embeddings_type=kind,
        requires_pooled_mask=[False, True],
    )
    ours = pico_xl.family.requested(read_prompt("a (red:1.5) (cat:0.5) BREAK a dog", ()))
    with torch.no_grad():
        theirs = [
            provider.get_embeddings_for_weighted_prompt_fragments([words], [weights])
            for words, weights in ((["a ", "red", " ", "cat"], [1, 1.5, 1, 0.5]), (["a dog"], [1]))
        ]
    assert ours.features.shape == (1, 2 * MAX_LENGTH, sum(WIDTHS.values()))
    torch.testing.assert_close(ours.features, torch.cat(theirs, dim=1), rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.extras["pooled"], pico_xl.family.condition(["a red cat a dog"]).extras["pooled"])


def test_prompts_with_weights_stand_beside_negative_ones(pico_xl):
    with pico_xl.folded(make_concept_xl(pico_xl, tokens="layerwise")), pico_xl.locked():
        prompt = pico_xl.family.requested(read_prompt("a (<anna>:1.3) BREAK a car", pico_xl.tokens))
        for negative in ("", "dog"):
            assert np.isfinite(drawn(pico_xl, [prompt], negative_prompt=negative)).all()


def test_a_saved_base_is_an_ordinary_pipeline_and_a_merge_into_files_is_the_same(pico_xl, tmp_path):
    folder = pico_xl.save(tmp_path / "base")
    again = load_base(folder)
    assert again.identity.hash == pico_xl.identity.hash
    change = merge([(make_concept_xl(again, num_vectors=2), 1.0), (make_concept_xl(again, "rex", seed=5), 0.5)])
    files = BaseFiles.of(folder)
    assert files is not None and files.identity == again.identity and files.takes(change)
    written = files.write(change, tmp_path / "files")
    with again.folded(change):
        saved = again.save(tmp_path / "saved")
        ours = drawn(again, WITH_ANNA)
    for path in sorted(path.relative_to(saved) for path in saved.rglob("*.safetensors")):
        assert (written / path).read_bytes() == (saved / path).read_bytes(), path
    pipeline = StableDiffusionXLPipeline.from_pretrained(written)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "np"}
    theirs = pipeline(WITH_ANNA, generator=torch.Generator().manual_seed(3), **options).images  # names every vector
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_files_take_no_tokens_of_one_text_encoder_alone(pico_xl, tmp_path):
    folder = pico_xl.save(tmp_path / "base")
    concept = make_concept_xl(load_base(folder), selection="none")
    files = BaseFiles.of(folder)
    assert files is not None and files.takes(merge([(concept, 1.0)]))
    (token,) = concept.tokens
    one = {"text_encoder": concept.tokens[token].vectors["text_encoder"]}
    assert not files.takes(merge([(replace(concept, tokens={token: Vector(one)}), 1.0)]))


def test_relatives_are_compared(pico_xl, pico_xl_folder, tmp_path, caplog):
    other = load_base(build_pico_xl(tmp_path / "other", seed=1))
    concept = make_concept_xl(other)
    moved = on_base(concept, pico_xl)
    assert moved.manifest.base == pico_xl.identity and "its file does not tell how far" in caplog.text


@pytest.mark.parametrize(
    ("component", "settings", "message"),
    [
        ("unet", {"addition_embed_type": None}, "unet addition_embed_type is None; allowed is 'text_time'"),
        (
            "unet",
            {"projection_class_embeddings_input_dim": 52},
            "unet projection_class_embeddings_input_dim is 52; allowed is 60: 12 of text_encoder_2's projection, 48 of "
            r"the 6 sizes of a picture \(a refiner reads others\)",
        ),
        (
            "unet",
            {"cross_attention_dim": 16},
            "unet reads text of width 16; allowed is that of text_encoder and text_encoder_2 side by side, 40",
        ),
        ("vae", {"latents_mean": [0.0] * 4}, r"vae latents_mean is \[0.0.*\]; allowed is none: one scaling_factor"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(base, component, settings, message):
    getattr(base.pipeline, component).register_to_config(**settings)
    with pytest.raises(BaseModelError, match=message):
        base.family.check(base.pipeline)


def test_tokenizers_of_different_lengths_are_refused(base):
    base.pipeline.tokenizer_2.model_max_length = 16
    with pytest.raises(BaseModelError, match="tokenizer_2 gives 16 tokens; allowed are the 32 of tokenizer, whose"):
        base.family.check(base.pipeline)


def test_an_unusual_network_is_tried(base):
    base.pipeline.unet.register_to_config(conv_in_kernel=5)
    base.family.check(base.pipeline)


def test_a_refiner_is_refused(pico_xl_folder, tmp_path):
    folder = shutil.copytree(pico_xl_folder, tmp_path / "refiner")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "text_encoder": [None, None]}))
    with pytest.raises(BaseModelError, match="model_index.json names no text_encoder; a base needs it"):
        load_base(folder)
