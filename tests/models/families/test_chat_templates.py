"""What bases share whose text a language model reads in its own chat template: Z-Image and FLUX.2 Klein."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, Flux2KleinPipeline, ZImagePipeline
from safetensors.torch import save_file
from transformers import Qwen2TokenizerFast

from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.models import Base, load_base
from orthoplex.models.words.prompt_forms import Templated
from orthoplex.training import ConceptDataset, TrainingConfig
from orthoplex.training.run import Run
from tests.pico import tokens_of
from tests.pico_qwen import LENGTH, build_klein, build_qwen_tokenizer, build_z_image
from tests.training.conftest import write_pictures

BUILDERS: Mapping[str, Callable[[Path], Path]] = {"z_image": build_z_image, "flux2_klein": build_klein}
CLASSES = {"z_image": ZImagePipeline, "flux2_klein": Flux2KleinPipeline}


@pytest.fixture(scope="module", params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[name](tmp_path_factory.mktemp(name) / "pipeline")


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_z_image(tmp_path_factory.mktemp("one") / "pipeline")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


@pytest.fixture(scope="module")
def theirs(name: str, folder: Path) -> DiffusionPipeline:
    pipeline = CLASSES[name].from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_pictures(pipeline: Any, base: Base, prompt: str, *seeds: int, guidance_scale: float) -> np.ndarray:
    """The pictures of diffusers' pipeline, from noise of these seeds."""
    shape, dtype = base.family.latent_shape, base.family.latent_dtype
    noise = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) for seed in seeds]
    made = pipeline(
        prompt=prompt,
        latents=torch.cat(noise),
        num_images_per_prompt=len(seeds),
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        height=32,
        width=32,
        max_sequence_length=LENGTH,
        output_type="np",
    )
    return (made.images * 255).round()


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_generate(base, theirs, scale):
    """Pictures are those of diffusers' pipeline, bit for bit."""
    ours = generate(base, "a red cat", seed=3, num_images=2, num_inference_steps=3, guidance_scale=scale)
    pictures = own_pictures(theirs, base, "a red cat", 3, 4, guidance_scale=scale)
    assert np.array_equal(np.stack([np.asarray(picture) for picture in ours]), pictures)
    assert not np.array_equal(pictures[0], pictures[1])


def test_half_precision(name, folder):
    """The same in bfloat16; the types of latents and of networks differ in Z-Image."""
    base = load_base(folder, dtype=torch.bfloat16)
    assert base.dtype == torch.bfloat16 and base.family.latent_dtype == (
        torch.float32 if name == "z_image" else torch.bfloat16
    )
    pipeline = CLASSES[name].from_pretrained(folder, dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.to(memory_format=torch.channels_last)  # as ours is; sums in another order are rounded otherwise
    (ours,) = generate(base, "a red cat", seed=3, num_inference_steps=3, guidance_scale=0.0)
    (pictures,) = own_pictures(pipeline, base, "a red cat", 3, guidance_scale=0.0)
    assert np.array_equal(np.asarray(ours), pictures)


def test_features_are_those_of_the_pipeline(base, theirs):
    texts = ["a cat", "a photo of a dog in a forest at night"]
    with torch.no_grad():
        ours = base.family.condition(texts)
        made, _ = theirs.encode_prompt(list(texts), device="cpu", max_sequence_length=LENGTH)
    assert ours.features.shape == (2, LENGTH, base.family.text_width)
    for place, features in enumerate(made):
        text = slice(None) if ours.mask is None else ours.mask[place]
        assert torch.equal(ours.features[place, text], features)


def test_a_batch_gives_what_each_gives_alone(base):
    family, noise = base.family, torch.randn(2, *base.family.latent_shape, generator=torch.Generator().manual_seed(0))
    times, texts = torch.tensor([300.0, 800.0]), ["a cat", "a photo of a dog in a forest at night by day " * 2]
    with torch.no_grad():
        together = family.predict(noise, times, family.condition(texts))
        for place, text in enumerate(texts):
            alone = family.predict(noise[place : place + 1], times[place], family.condition([text]))
            torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_template_is_no_word(base):
    words, ids = base.family.words, base.family.words.ids(["a cat", "a red cat"])
    assert (~words.filling(ids)).sum(1).tolist() == [2, 3]
    assert words.room("a red cat").length == 3 and words.room("").length == 0
    assert words.room("a").limit == LENGTH - base.family.readers[0].num_marks
    assert base.tokens == ()  # <think> is none


@pytest.mark.parametrize("tied", [True, False])
def test_tokens_stand_in_the_language_model(name, base, tmp_path, tied):
    if not tied:
        if name == "z_image":
            pytest.skip("it has no head")
        base = load_base(build_klein(tmp_path / "untied", tied=False))
    family, network = base.family, base.pipeline.text_encoder
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    before, rows = family.condition(["a <anna> cat"]), len(embedding.weight)
    with base.with_tokens(tokens_of({"<anna>": torch.full((16,), 0.5), "<anna>_1": torch.full((16,), -0.5)})):
        assert base.tokens == ("<anna>", "<anna>_1")
        ids = family.words.ids(["a <anna> cat"])
        numbers = base.pipeline.tokenizer.convert_tokens_to_ids(["<anna>", "<anna>_1"])
        assert torch.equal(embedding.weight[numbers], torch.tensor([[0.5], [-0.5]]).expand(2, 16))
        places = family.words.places(ids, ["<anna>", "<anna>_1"])[0]
        words = ~family.words.filling(ids)[0]
        assert places.sum(1).tolist() == [1, 1] and words[places.any(0)].all() and words.sum() == 6  # two are spaces
        after = family.condition(["a <anna> cat"])
        written = load_base(base.save(tmp_path / "written"))
        assert head is None or len(head.weight) == len(embedding.weight)
    assert not torch.equal(before.features, after.features)
    assert torch.equal(written.family.condition(["a <anna> cat"]).features, after.features)
    assert len(embedding.weight) == network.config.vocab_size == rows and base.tokens == ()
    assert head is None or (head.weight is embedding.weight) == tied
    assert torch.equal(before.features, family.condition(["a <anna> cat"]).features)


def test_a_foreign_file_folds_as_diffusers_reads_it(name, base, theirs, tmp_path):
    """A file in the layer names of diffusers, drawn by both."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for layer, item in base.family.layers("linear").items():
        down = torch.randn(2, item.linear.in_features, generator=generator) / 4
        up = torch.randn(item.linear.out_features, 2, generator=generator) / 4
        tensors |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    family = {"z_image": "z_image", "flux2_klein": "flux2"}[name]
    concept = foreign_concept(read_lora(tmp_path / "lora.safetensors", family=family), base.identity)
    options = {"seed": 1, "num_inference_steps": 3, "guidance_scale": 0.0}
    ours, plain = (np.asarray(generate(base, "a cat", merge=change, **options)[0]) for change in (concept, None))
    theirs.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    (pictures,) = own_pictures(theirs, base, "a cat", 1, guidance_scale=0.0)
    theirs.unload_lora_weights()
    assert np.abs(ours - pictures).max() <= 1  # added to the output there, to the weights here
    assert np.abs(ours.astype(int) - plain).max() > 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a (red:1.3) cat", "has weights or BREAK, which base 'pipeline' does not read"),
        ("a cat BREAK a dog", "has weights or BREAK, which base 'pipeline' does not read"),
        ("cat " * 60, r"has \d+ tokens, base 'pipeline' reads at most \d+"),
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


def setting(file: str, **values: Any) -> Callable[[Path], None]:
    """A change of some values of a JSON file in a folder."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def without_template(folder: Path) -> None:
    (folder / "tokenizer" / "chat_template.jinja").unlink()


def other_template(folder: Path) -> None:
    (folder / "tokenizer" / "chat_template.jinja").write_text("hello")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            setting("model_index.json", scheduler=["diffusers", "DDIMScheduler"]),
            "scheduler is a DDIMScheduler; allowed",
        ),
        (
            setting("model_index.json", text_encoder=["transformers", "CLIPTextModel"]),
            "text_encoder is a CLIPTextModel",
        ),
        (
            setting("model_index.json", vae=["diffusers", "AutoencoderTiny"]),
            "vae is a AutoencoderTiny, allowed are Auto",
        ),
        (
            setting("scheduler/scheduler_config.json", num_train_timesteps=9),
            "num_train_timesteps is 9; allowed is 1000",
        ),
        (setting("vae/config.json", sample_size=36), "vae sample_size is 36; allowed are multiples of 8"),
        (
            setting("tokenizer/tokenizer_config.json", model_max_length=9),
            r"model_max_length is 9; allowed is more than",
        ),
        (
            setting("tokenizer/tokenizer_config.json", pad_token=None),
            "tokenizer has no pad_token; a prompt needs filling",
        ),
        (
            setting("tokenizer/tokenizer_config.json", pad_token="<|im_end|>"),  # noqa: S106  (a token of words)
            r"tokenizer pad_token is '<\|im_end\|>', which its chat template has; allowed is a token that no text has",
        ),
        (without_template, "tokenizer makes no chat of a prompt, as the base needs: .*chat_template"),
        (other_template, "its chat template makes 'hello' of any prompt; allowed is a text that holds it"),
    ],
)
def test_folders_whose_parts_do_not_fit(
    z_image: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    copy = shutil.copytree(z_image, tmp_path / "copy")
    change(copy)
    with pytest.raises(BaseModelError, match=message):
        load_base(copy)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Qwen2TokenizerFast:
    return build_qwen_tokenizer(tmp_path_factory.mktemp("vocabulary"))


@pytest.mark.parametrize(
    ("thinking", "behind"),
    [(True, ""), (False, "<think>\n\n</think>\n\n")],
)
def test_the_form_is_that_of_the_chat_template(tokenizer, thinking, behind):
    form = Templated.of_chat(tokenizer, LENGTH, enable_thinking=thinking)
    assert form == Templated("<|im_start|>user\n", f"<|im_end|>\n<|im_start|>assistant\n{behind}", LENGTH)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a cat"}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    ids = form.ids(tokenizer, ["a cat"])
    (whole,) = tokenizer([text], padding="max_length", max_length=LENGTH).input_ids
    assert ids[0].tolist() == whole
    words = (~form.filling(tokenizer, ids)[0]).nonzero().flatten()
    assert tokenizer.decode(ids[0, words]) == "a cat"
