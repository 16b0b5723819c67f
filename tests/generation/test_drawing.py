"""Pictures from prompts."""

from __future__ import annotations

import numpy
import pytest
import torch

from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import GenerationProgress, generate, picture_recipe
from orthoplex.generation import generate as generate_function
from orthoplex.merging import merge
from orthoplex.models import Base, Family, chosen_precision, load_base, precision
from tests.pico import MAX_LENGTH, make_concept
from tests.pictures import recorded_requests


def pixels(image):
    return numpy.asarray(image, numpy.int16)


def close(first, second):
    """Equal up to one grey level: products of other batch sizes may round otherwise."""
    return numpy.abs(pixels(first) - pixels(second)).max() <= 1


def test_the_same_seed_is_the_same_picture_and_another_is_not(pico):
    first, again = (generate(pico, "a cat", seed=1, num_inference_steps=2)[0] for _ in range(2))
    assert first.size == (32, 32) and first.mode == "RGB"
    assert close(first, again)
    assert not close(first, generate(pico, "a cat", seed=2, num_inference_steps=2)[0])


def test_picture_i_has_seed_plus_i_whatever_the_number_of_pictures(pico):
    many = generate(pico, "a cat", num_images=10, seed=5, num_inference_steps=1)
    assert len(many) == 10
    for i in (0, 3, 7, 8, 9):
        assert close(many[i], generate(pico, "a cat", seed=5 + i, num_inference_steps=1)[0])
    assert not close(many[0], many[1])


def test_a_merge_is_folded_for_the_call_only(pico):
    anna = make_concept(pico, scale=0.3)
    plain = generate(pico, "a person", num_inference_steps=2)[0]
    inside = generate(pico, "a person", merge=merge([(anna, 1.0)]), num_inference_steps=2)[0]
    assert not close(plain, inside)
    assert pico.recipe is None
    assert close(plain, generate(pico, "a person", num_inference_steps=2)[0])
    with pico.folded(anna):
        assert close(inside, generate(pico, "a person", num_inference_steps=2)[0])
        with pytest.raises(BaseModelError, match="has anna folded in"):
            generate(pico, "a person", merge=anna)


def test_a_concept_at_strength_zero_draws_what_the_base_draws(pico):
    anna, rex = make_concept(pico, scale=0.3, num_vectors=2), make_concept(pico, "rex", scale=0.3, seed=1)
    plain = generate(pico, "a photo of person", num_inference_steps=2)[0]
    silent = merge([(anna, 0.0)])
    for prompt in ("a photo of <anna> person", "a photo of <anna> <anna>_1 person"):
        assert close(plain, generate(pico, prompt, merge=silent, num_inference_steps=2)[0])
    beside = {"merge": merge([(anna, 0.0), (rex, 1.0)]), "num_inference_steps": 2}
    alone = {"merge": merge([(rex, 1.0)]), "num_inference_steps": 2}
    assert close(generate(pico, "<anna> person and <rex>", **beside)[0], generate(pico, "person and <rex>", **alone)[0])
    with pytest.raises(PromptError, match="<bob>"):
        generate(pico, "<bob>", merge=silent)


@pytest.mark.parametrize("prompt", ["a photo of <anna>", "a photo of <anna> <anna>_1 <anna>_2"])
def test_every_vector_of_a_concept_reaches_the_text_encoder_once(pico, prompt):
    anna = make_concept(pico, num_vectors=3)
    seen = []
    with pico.folded(anna):
        ids = [pico.pipeline.tokenizer.convert_tokens_to_ids(token) for token in ("<anna>", "<anna>_1", "<anna>_2")]
        table = pico.pipeline.text_encoder.get_input_embeddings()
        hook = table.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].tolist()))
        generate(pico, prompt, num_inference_steps=1)
        hook.remove()
    assert [token for token in seen[0] if token in ids] == ids


def test_an_unknown_concept_in_either_prompt_is_refused(pico):
    anna = make_concept(pico)
    with pytest.raises(PromptError, match="'<rex>', which is not loaded; known concepts: <anna>"):
        generate(pico, "a photo of <rex>", merge=anna)
    with pytest.raises(PromptError, match="'<anna>', which is not loaded; known concepts: none"):
        generate(pico, "a photo", negative_prompt="<anna>")


def lengths_read(pico, *arguments, **options):
    """The lengths of the features that the denoiser reads."""
    seen = set()
    hook = pico.pipeline.unet.register_forward_pre_hook(lambda module, inputs: seen.add(tuple(inputs[2].shape[:2])))
    generate(pico, *arguments, num_inference_steps=1, **options)
    hook.remove()
    return seen


def test_a_prompt_longer_than_the_text_encoder_reads_is_read_in_chunks(pico):
    assert lengths_read(pico, "cat " * 30) == {(2, MAX_LENGTH)}
    assert lengths_read(pico, "cat " * 31) == {(2, 2 * MAX_LENGTH)}
    assert lengths_read(pico, "cat", negative_prompt="dog " * 61) == {(2, 3 * MAX_LENGTH)}
    assert lengths_read(pico, "cat BREAK (dog)", negative_prompt="[dog]") == {(2, 2 * MAX_LENGTH)}
    assert lengths_read(pico, "(cat)", num_images=3, guidance_scale=1.0) == {(3, MAX_LENGTH)}


def test_families_without_chunks_refuse_weights_and_long_prompts(pico, monkeypatch):
    monkeypatch.setattr(type(pico.family), "condition_weighted", Family.condition_weighted)
    with pytest.raises(PromptError, match="has 31 tokens, base 'pipeline' reads at most 30"):
        generate(pico, "cat " * 31)
    with pytest.raises(PromptError, match="^negative_prompt 'dog"):
        generate(pico, "cat", negative_prompt="dog " * 31)
    for prompt in ("a (cat)", "a BREAK cat"):
        with pytest.raises(PromptError) as error:
            generate(pico, prompt)
        assert str(error.value) == (
            f"prompt '{prompt}' has weights or BREAK, which base 'pipeline' does not read; write the words alone, with "
            r"'\(' for a bracket that is text"
        )
    generate(pico, r"a \(cat\)", num_inference_steps=1)


def test_weights_and_their_concepts_matter_and_the_recipe_gives_the_same_picture(pico):
    settings = {"merge": make_concept(pico, num_vectors=2), "num_inference_steps": 3, "guidance_scale": 9.0}
    prompt = "a (<anna> person:1.6) BREAK [night]"
    first = generate(pico, prompt, **settings)[0]
    assert picture_recipe(prompt, base=pico)["prompt"] == prompt
    assert close(first, generate(pico, picture_recipe(prompt, base=pico)["prompt"], **settings)[0])
    assert numpy.abs(pixels(first) - pixels(generate(pico, "a <anna> person", **settings)[0])).max() > 0
    one = {**settings, "guidance_scale": 1.0}
    assert numpy.array_equal(
        pixels(generate(pico, "a (<anna>:1)", **one)[0]), pixels(generate(pico, "a <anna>", **one)[0])
    )


@pytest.mark.parametrize(
    ("prompt", "options", "line"),
    [
        ("a photo of anna person", {}, "anna is loaded and not named in the prompt; write <anna>"),
        ("a photo of &lt;anna&gt;", {}, "anna is loaded and not named in the prompt; write <anna>"),
        ("a photo of <anna> person", {}, None),
        ("a photo of (<anna>:1.2)", {}, None),
        ("a photo", {"negative_prompt": "<anna>"}, None),
        ("a photo of anna", {"expect_names": False}, None),
    ],
)
def test_a_concept_that_is_loaded_and_not_named_is_told(pico, caplog, prompt, options, line):
    generate(pico, prompt, merge=make_concept(pico, num_vectors=2), num_inference_steps=1, **options)
    assert caplog.messages == ([] if line is None else [line])


def test_the_concepts_of_merges_that_are_not_named_are_told(pico, caplog):
    anna, rex = make_concept(pico), make_concept(pico, "rex", seed=1)
    wordless = make_concept(pico, "wash", num_vectors=0, seed=2)
    generate(
        pico,
        "<anna> and rex",
        merge=merge(algorithm="sum", concepts=[(anna, 1.0), (rex, 1.0), (wordless, 1.0)]),
        num_inference_steps=1,
    )
    generate(pico, "nobody", merge=merge(algorithm="sum", concepts=[(anna, 1.0), (rex, 0.0)]), num_inference_steps=1)
    generate(pico, "nobody", merge=merge(algorithm="sum", concepts=[(anna, 1.0), (rex, 1.0)]), num_inference_steps=1)
    assert caplog.messages == [
        "rex is loaded and not named in the prompt; write <rex>",
        "anna is loaded and not named in the prompt; write <anna>",
        "anna, rex are loaded and not named in the prompt; write <anna>, <rex>",
    ]


def test_of_the_concepts_in_a_base_one_is_to_be_named(pico, caplog, tmp_path):
    with pico.folded(
        merge(algorithm="sum", concepts=[(make_concept(pico), 1.0), (make_concept(pico, "rex", seed=1), 1.0)])
    ):
        pico.save(tmp_path / "both")
    both = load_base(tmp_path / "both")
    for prompt in ("<anna> alone", "anna alone"):
        generate(both, prompt, num_inference_steps=1)
    assert caplog.messages == ["anna, rex are loaded and not named in the prompt; write <anna>, <rex>"]


def test_lines_that_name_concepts_are_one_text(pico, caplog):
    both = merge(algorithm="sum", concepts=[(make_concept(pico), 1.0), (make_concept(pico, "rex", seed=1), 1.0)])
    generate(pico, "a forest\n<anna> on the left\n\n<rex>", merge=both, num_inference_steps=1)
    generate(pico, "a forest\n<anna> and <rex>", merge=both, num_inference_steps=1)
    assert caplog.messages == ["prompt has 3 lines, which are read as one text; say in words where things are"]


def test_guidance_and_the_negative_prompt_matter(pico):
    settings = {"seed": 1, "num_inference_steps": 3}
    guided = generate(pico, "a cat", guidance_scale=30.0, **settings)[0]
    assert numpy.abs(pixels(guided) - pixels(generate(pico, "a cat", guidance_scale=1.0, **settings)[0])).max() > 0
    away = generate(pico, "a cat", guidance_scale=30.0, negative_prompt="night forest", **settings)[0]
    assert numpy.abs(pixels(guided) - pixels(away)).max() > 0


def test_bf16_gives_nearly_the_same_pictures_and_ends_with_them(pico):
    settings = {"seed": 1, "num_inference_steps": 3, "num_images": 2}
    exact, fast = (generate(pico, "a cat", mixed_precision=kind, **settings) for kind in ("no", "bf16"))
    differences = [numpy.abs(pixels(one) - pixels(other)) for one, other in zip(exact, fast, strict=True)]
    assert 0 < max(difference.max() for difference in differences) <= 8
    assert not torch.is_autocast_enabled("cpu") and pico.dtype == torch.float32


def test_auto_takes_bf16_only_where_the_processor_has_it(pico, monkeypatch):
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able})
        told = "bf16" if able else "no"
        assert chosen_precision("auto", torch.device("cpu")) == told
        assert picture_recipe("a cat", base=pico, mixed_precision="auto")["mixed_precision"] == told
        with precision("auto", torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") == able
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert chosen_precision("auto", torch.device("cpu")) == "bf16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in older versions
    assert chosen_precision("auto", torch.device("cpu")) == "no"
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able, **told: able)
        assert chosen_precision("auto", torch.device("cuda")) == ("bf16" if able else "no")
    assert chosen_precision("bf16", torch.device("cpu")) == "bf16"


def test_progress_counts_the_steps_of_all_batches(pico, capfd):
    seen: list[GenerationProgress] = []
    generate(pico, "a cat", num_images=9, num_inference_steps=2, progress=seen.append)
    assert seen == [GenerationProgress(step, 4) for step in (1, 2, 3, 4)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_images", 0, "num_images is 0; allowed are whole numbers from 1"),
        ("num_inference_steps", 0, "num_inference_steps is 0; allowed are whole numbers from 1"),
        ("seed", -1, "seed is -1; allowed are whole numbers from 0 to 2.63 - 1"),
        ("guidance_scale", float("nan"), "guidance_scale is nan; allowed are finite numbers from 0"),
        ("guidance_scale", -1.0, "guidance_scale is -1.0"),
        ("guidance_scale", "4", "guidance_scale is '4'; allowed are finite numbers"),
        ("mixed_precision", "fp16", "mixed_precision is 'fp16'; allowed are 'no', 'bf16', 'auto'"),
        ("num_images", 1.5, "num_images is 1.5; allowed are whole numbers"),
        ("seed", 0.5, "seed is 0.5; allowed are whole numbers"),
        (
            "num_inference_steps",
            1001,
            "num_inference_steps is 1001; allowed are 1 to 1000, the timesteps of the base's",
        ),
    ],
)
def test_numbers_outside_their_range_are_refused(pico, option, value, message):
    with pytest.raises(ConfigurationError, match=message):
        generate_function(pico, "a cat", **{option: value})


def test_an_error_in_the_callback_leaves_the_base_clean(pico):
    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(pico, "a cat", merge=make_concept(pico), progress=interrupt)
    assert pico.recipe is None and pico.tokens == ()


def test_the_recipe_of_a_picture(pico):
    both = merge([(make_concept(pico), 1.0), (make_concept(pico, "rex", seed=1), 0.8)])
    recipe = picture_recipe("a cat", base=pico, merge=both, seed=7, negative_prompt="night")
    assert recipe["prompt"] == "a cat" and recipe["seed"] == 7 and recipe["negative_prompt"] == "night"
    assert recipe["base"]["hash"] == pico.identity.hash
    assert [concept["strength"] for concept in recipe["merge"]["concepts"]] == [1.0, 0.8]
    assert picture_recipe("a cat", base=pico)["merge"] is None
    with pico.folded(both):
        assert picture_recipe("a cat", base=pico)["merge"] == both.recipe.to_json()


def test_the_recipe_says_how_an_unusual_base_drew(pico, pico_folder):
    anna, usual = merge([(make_concept(pico), 1.0)]), {"dtype", "quantise", "unmerged"}
    assert not usual & picture_recipe("a cat", base=pico, merge=anna).keys()
    assert picture_recipe("a cat", base=pico, merge=anna, unmerged=True)["unmerged"] is True
    with pico.folded(anna, unmerged=True):
        assert picture_recipe("a cat", base=pico)["unmerged"] is True
    with pico.folded(anna):
        assert not usual & picture_recipe("a cat", base=pico).keys()
    narrow = load_base(pico_folder, dtype=torch.bfloat16, quantise="torchao-int8")
    recipe = picture_recipe("a cat", base=narrow, merge=anna)
    assert (recipe["dtype"], recipe["quantise"]) == ("bfloat16", "torchao-int8") and "unmerged" not in recipe
    assert picture_recipe("a cat", base=Base(narrow.pipeline, narrow.identity))["quantise"] == "torchao"


def test_steps_and_guidance_are_the_bases_own_where_none_are_given(pico, monkeypatch):
    requests = recorded_requests(pico, monkeypatch)
    for row, own in (
        ({"num_inference_steps": 2, "guidance_scale": 0.0}, (2, 0.0)),
        ({"num_inference_steps": 2}, (2, 4.0)),
    ):
        monkeypatch.setattr("orthoplex.models.base.defaults_of", lambda name, row=row: row)
        generate_function(pico, "a cat")
        generate_function(pico, "a cat", num_inference_steps=1, guidance_scale=1.5)
        asked = [(request.num_inference_steps, request.guidance_scale) for request in requests[-2:]]
        assert asked == [own, (1, 1.5)]
        recipe = picture_recipe("a cat", base=pico)
        assert (recipe["num_inference_steps"], recipe["guidance_scale"]) == own


def test_defaults_of_pictures_by_family(pico):
    assert load_base("vignette").picture_defaults == (20, 4.0) and pico.picture_defaults == (30, 7.5)


def test_noise_comes_from_the_cpu_generator_of_each_seed(pico, monkeypatch):
    requests = recorded_requests(pico, monkeypatch)
    with torch.random.fork_rng(devices=[]):
        generate(pico, "a cat", num_images=3, seed=4, num_inference_steps=1)
    generators = [generator for request in requests for generator in request.generators]
    seeds = [(generator.device.type, generator.initial_seed()) for generator in generators]
    assert seeds == [("cpu", 4), ("cpu", 5), ("cpu", 6)]


@pytest.mark.parametrize("text", [None, ["a cat"], "a \udcff"])
def test_prompts_that_are_no_text_are_refused(pico, text):
    with pytest.raises(PromptError, match="^prompt .*(allowed is one text|is no UTF-8)"):
        generate(pico, text)
    with pytest.raises(PromptError, match="^negative_prompt"):
        generate(pico, "a cat", negative_prompt=text)


def test_pictures_that_are_not_finite_are_refused(pico):
    with pytest.raises(ConfigurationError, match=r"pictures of 'a cat' .* not finite; guidance_scale is 1e\+38"):
        generate(pico, "a cat", guidance_scale=1e38, num_inference_steps=2)


def test_pictures_are_the_pipelines_own(pico):
    ours = generate(pico, "a cat", seed=3, num_inference_steps=2, guidance_scale=4.0)[0]
    generator = [torch.Generator().manual_seed(3)]
    result = pico.pipeline("a cat", num_inference_steps=2, guidance_scale=4.0, negative_prompt="", generator=generator)
    assert numpy.array_equal(pixels(ours), pixels(result.images[0]))
