"""Merging LoRA files of any program: exact sums, full weights, recipes, verification; and what is refused."""

from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConfigurationError
from orthoplex.merging import (
    ALGORITHMS,
    FileRecipe,
    FileSettings,
    Strengths,
    Truncation,
    merge_again,
    merge_files,
    verify,
)

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.downsamplers.0.conv"
TEXT = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
OUT = "unet.conv_out"


def lora(name: str, seed: int = 0, *, dtype=torch.float16, token: str | None = None, full: bool = False, **fields):
    generator = torch.Generator().manual_seed(seed)
    shapes = {KEY: (10, 8), CONV: (6, 18), TEXT: (9, 7)}
    layers = {
        layer: LowRank(
            torch.randn(out, 2, generator=generator).to(dtype), torch.randn(2, width, generator=generator).to(dtype)
        )
        for layer, (out, width) in shapes.items()
    }
    differences = (
        {f"{OUT}.weight": torch.randn(4, 3, 3, 3, generator=generator), f"{OUT}.bias": torch.ones(4)} if full else {}
    )
    embeddings = {token: {"text_encoder": torch.ones(1, 7)}} if token else {}
    file = LoraFile(name, "kohya", "stable_diffusion", "sd1", layers, {CONV: (3, 3)}, differences, embeddings)
    return replace(file, **fields)


A, B = lora("a", 1, token="<a>", full=True), lora("b", 2, token="<b>", full=True)
ONE = Strengths()


def sums(layer: str, *pairs) -> torch.Tensor:
    return sum(s * (file.layers[layer].up.double() @ file.layers[layer].down.double()) for file, s in pairs)


def test_powers_of_two_lose_nothing_and_keep_the_type():
    merged = merge_files([(B, Strengths(-0.5)), (A, Strengths(2.0))])
    for layer in (KEY, CONV, TEXT):
        change = merged.lora.layers[layer]
        assert change.up.dtype == change.down.dtype == torch.float16 and change.rank == 4
        exact = change.up.double() @ change.down.double()
        torch.testing.assert_close(exact, sums(layer, (A, 2.0), (B, -0.5)), rtol=1e-14, atol=1e-14)
        assert torch.equal(change.up[:, :2], A.layers[layer].up * 2)
    assert merged.notes == () and merged.rounding is None
    assert merged.lora.windows == {CONV: (3, 3)} and [*merged.lora.embeddings] == ["<a>", "<b>"]
    torch.testing.assert_close(
        merged.lora.differences[f"{OUT}.weight"],
        2 * A.differences[f"{OUT}.weight"] - B.differences[f"{OUT}.weight"] / 2,
    )


def test_other_strengths_are_float32_and_said():
    merged = merge_files([(A, Strengths(0.8)), (B, ONE)])
    assert merged.lora.layers[KEY].up.dtype == torch.float32
    said = merged.rounding
    assert said is not None and "rounded once to float32, by 6e-8 of themselves at most" in said and "a (0.8)" in said
    assert all(
        item.error < 1e-7 and item.error <= 1.01 * item.floor + 1e-12
        for item in verify(merged.lora, [(A, Strengths(0.8)), (B, ONE)])
    )


def test_strengths_of_text_encoders_and_blocks():
    strengths = Strengths.read("0.5; te=0; blocks=mid=2")
    assert strengths.text == "0.5; te=0; blocks=mid=2"
    merged = merge_files([(A, strengths)]).lora
    assert torch.equal(merged.layers[KEY].up, A.layers[KEY].up)
    assert torch.equal(merged.layers[CONV].up, A.layers[CONV].up / 2)
    assert TEXT not in merged.layers


def test_blocks_that_a_preset_leaves_out_are_said():
    notes = merge_files([(A, Strengths.read("MIDD"))]).notes
    assert notes[0] == (
        "a: blocks IN03 get 0, because the block weights leave them out; a list of 26 numbers has them all"
    )


def test_only_a_part_is_merged():
    merged = merge_files([(A, ONE), (B, ONE)], only=["cross-attention", "text-encoder"])
    assert sorted(merged.lora.layers) == [TEXT, KEY] and not merged.lora.differences
    assert merged.recipe.only == ("cross-attention", "text-encoder")


def test_a_shared_down_is_shared():
    down = A.layers[KEY].down
    other = replace(A, name="other", embeddings={}, layers={KEY: LowRank(A.layers[KEY].up * 2, down)})
    change = merge_files([(A, ONE), (other, ONE)]).lora.layers[KEY]
    assert change.rank == 2 and torch.equal(change.up, A.layers[KEY].up.float() * 3)


def test_mean_divides_by_all_files():
    merged = merge_files([(A, ONE), (B, ONE)], algorithm="mean").lora
    torch.testing.assert_close(merged.layers[KEY].delta().double(), sums(KEY, (A, 0.5), (B, 0.5)), rtol=1e-6, atol=1e-6)
    assert merged.differences[f"{OUT}.bias"].tolist() == [1, 1, 1, 1]


def test_truncation_reports_what_is_lost():
    merged = merge_files([(A, ONE), (B, ONE)], truncation=Truncation(rank=3))
    exact = {layer: sums(layer, (A, 1), (B, 1)) for layer in (KEY, CONV, TEXT)}
    full = f"{OUT}.weight"
    exact[OUT] = (A.differences[full].double() + B.differences.get(full, torch.zeros(1))).flatten(1)
    lost = {layer: torch.linalg.svdvals(matrix)[3:].square().sum().item() for layer, matrix in exact.items()}
    assert {layer: loss.lost for layer, loss in merged.losses.items()} == pytest.approx(lost)
    assert merged.lost == pytest.approx(sum(lost.values()) / sum(m.square().sum().item() for m in exact.values()))
    assert [*merged.lora.differences] == [f"{OUT}.bias"] and merged.lora.windows[OUT] == (3, 3)
    whole = merge_files([(A, ONE), (B, ONE)], truncation=Truncation(rank=4))
    assert "1 full differences stay full" in whole.notes[0] and whole.losses[OUT].lost == 0
    torch.testing.assert_close(whole.lora.differences[full].flatten(1), exact[OUT].float())


def test_a_layer_of_factors_and_a_full_difference_is_truncated_as_one():
    """Also where the full difference takes away nearly all that the factors have."""
    generator = torch.Generator().manual_seed(5)
    small = LowRank(torch.randn(10, 1, generator=generator), torch.randn(1, 8, generator=generator))
    own = A.layers[KEY]
    rest = {f"{KEY}.weight": small.delta() - own.up.float() @ own.down.float()}
    other = replace(A, name="other", layers={}, windows={}, embeddings={}, differences=rest)
    merged = merge_files([(A, ONE), (other, ONE)], truncation=Truncation(rank=1))
    torch.testing.assert_close(merged.lora.layers[KEY].delta(), small.delta(), rtol=1e-4, atol=1e-4)
    assert f"{KEY}.weight" not in merged.lora.differences and merged.losses[KEY].lost < 1e-9
    pairs = [(A, ONE), (other, ONE)]
    errors = {item.name: item for item in verify(merged.lora, pairs, truncated=True)}
    assert errors[f"{KEY}.weight"].error < 1e-5


@pytest.mark.parametrize("algorithm", ["ties", "mean", "sum"])
def test_the_scale_multiplies_everything(algorithm):
    """Low-rank changes, full weights and biases, against float64 where the algorithm is a sum."""
    one = merge_files([(A, ONE), (B, Strengths(0.8))], algorithm=algorithm).lora
    scaled = merge_files([(A, ONE), (B, Strengths(0.8))], algorithm=algorithm, scale=-0.7).lora
    for parameter, tensor in one.differences.items():
        torch.testing.assert_close(scaled.differences[parameter], -0.7 * tensor)
    for layer, change in one.layers.items():
        torch.testing.assert_close(scaled.layers[layer].delta(), -0.7 * change.delta(), rtol=1e-4, atol=1e-4)
    if algorithm == "ties":  # of one file at full density, TIES is the file
        alone = merge_files([(A, Strengths(0.5))], algorithm="ties", options={"density": 1.0}, scale=-0.7).lora
        weight = A.differences[f"{OUT}.weight"].double() * -0.35
        torch.testing.assert_close(_whole(alone, OUT), weight.flatten(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(_whole(alone, KEY), sums(KEY, (A, -0.35)), rtol=1e-4, atol=1e-4)


def _whole(file: LoraFile, layer: str) -> torch.Tensor:
    if layer in file.layers:
        return file.layers[layer].up.double() @ file.layers[layer].down.double()
    return file.differences[f"{layer}.weight"].double().flatten(1)


def test_full_weights_and_factors_of_one_layer_are_one_change_for_every_algorithm():
    both = replace(A, differences={**A.differences, f"{KEY}.weight": torch.ones(10, 8)})
    merged = merge_files([(both, ONE)], algorithm="ties", options={"density": 1.0}).lora
    torch.testing.assert_close(_whole(merged, KEY), sums(KEY, (A, 1.0)) + 1, rtol=1e-4, atol=1e-4)


def test_what_headers_say_alike_stays_and_trigger_words_are_joined():
    header = {"modelspec.architecture": "stable-diffusion-v1/lora", "ss_sd_model_name": "base", "ss_steps": "9"}
    first = replace(A, metadata={**header, "modelspec.trigger_phrase": "a sks dog"})
    second = replace(B, metadata={**header, "ss_sd_model_name": "other", "ss_trigger_word": "otto"})
    metadata = {**merge_files([(second, ONE), (first, ONE)]).lora.metadata}
    del metadata["orthoplex_recipe"]
    assert metadata == {
        "modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.trigger_phrase": "otto, a sks dog",
    }  # fmt: skip


def test_the_style_is_that_of_the_first_file_as_given():
    other = replace(B, style="diffusers")
    assert merge_files([(other, ONE), (A, ONE)]).lora.style == "diffusers"
    assert merge_files([(A, ONE), (other, ONE)]).lora.style == "kohya"


@pytest.mark.parametrize("algorithm", [name for name, kind in ALGORITHMS.items() if not kind.needs_inputs])
def test_every_algorithm_merges_full_weights_too(algorithm):
    merged = merge_files([(A, ONE), (B, ONE)], algorithm=algorithm)
    weight = merged.lora.differences.get(f"{OUT}.weight")
    assert OUT in merged.lora.layers or (weight is not None and weight.shape == (4, 3, 3, 3))
    assert {KEY, CONV, TEXT} <= {*merged.lora.layers} | {
        name.removesuffix(".weight") for name in merged.lora.differences
    }
    assert merged.lora.differences[f"{OUT}.bias"].tolist() == [1 if algorithm == "mean" else 2] * 4


def test_full_ranks_become_differences_of_the_weights_shape():
    merged = merge_files([(A, ONE), (B, ONE)], algorithm="ties")
    assert merged.lora.differences[f"{CONV}.weight"].shape == (6, 2, 3, 3) and not merged.lora.layers
    assert "4 layers have full rank after this algorithm and are full differences" in merged.notes[0]
    cut = merge_files([(A, ONE), (B, ONE)], algorithm="ties", truncation=Truncation(rank=2)).lora
    assert cut.layers[CONV].rank == 2 and cut.windows == {CONV: (3, 3), OUT: (3, 3)}


def test_the_recipe_makes_the_merge_again(tmp_path):
    files = {"a.safetensors": A, "renamed.safetensors": B}
    for name in files:
        (tmp_path / name).touch()
    given = [(replace(A, path=tmp_path / "a.safetensors"), Strengths(0.3)), (B, Strengths.read("0.7; te=0.1; mid=2"))]
    merged = merge_files(given, truncation=Truncation(energy=0.9))
    recipe = FileRecipe.of_file(merged.lora)
    assert recipe == merged.recipe
    again = merge_again(recipe, recipe.find(tmp_path, lambda path: files[path.name]))
    assert again.lora.content_hash == merged.lora.content_hash
    settings = FileSettings("comfy", "float16", "sd1", partial=True)
    assert FileRecipe.of_file(merged.with_settings(settings).lora).settings == settings
    with pytest.raises(ConfigurationError, match="x has the content hash .*; the recipe.s a has"):
        recipe.find(tmp_path, lambda path: lora("x", 7) if path.name == "a.safetensors" else B)
    (tmp_path / "renamed.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="b of the recipe is not in .*; allowed is a folder with all 2 files"):
        recipe.find(tmp_path, lambda path: files[path.name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a recipe is no JSON"),
        ("[]", "a recipe is list"),
        ('{"format": 2}', "has format 2; allowed is 1"),
        ('{"format": 1}', "a recipe cannot be read"),
    ],
)
def test_recipes_that_are_none(text, message):
    with pytest.raises(ConfigurationError, match=message):
        FileRecipe.from_text(text)
    with pytest.raises(ConfigurationError, match="a has no recipe"):
        FileRecipe.of_file(A)


XL = replace(B, family="stable_diffusion_xl", version="sdxl")
UNKNOWN = replace(A, family=None, version=None)
REFUSED = {
    "no file": ([], {}, "a merge of 0 files"),
    "twice": ([(A, ONE), (replace(A, name="c"), ONE)], {}, "a and c have the same content"),
    "no pair": ([A], {}, "a merge of LoraFile was asked for"),
    "a number": ([(A, 0.5)], {}, "a has strengths of type float; allowed are Strengths"),
    "families": (
        [(A, ONE), (XL, ONE)],
        {},
        r"a is for sd1 \(stable_diffusion\) and b for sdxl \(stable_diffusion_xl\)",
    ),
    "versions": ([(A, ONE), (replace(B, version="sd2"), ONE)], {}, r"a is for sd1 .* and b for sd2"),
    "styles": ([(UNKNOWN, ONE), (replace(B, family=None, style="comfy"), ONE)], {}, "of styles 'kohya' and 'comfy'"),
    "no layer": (
        [(UNKNOWN, ONE), (LoraFile("c", "kohya", None, None, {"x": B.layers[KEY]}), ONE)],
        {},
        "have no layer in common",
    ),
    "tokens": ([(A, ONE), (lora("c", 5, token="<a>"), ONE)], {}, "token <a> is claimed by a and c"),
    "windows": ([(A, ONE), (replace(B, windows={CONV: (1, 9)}), ONE)], {}, r"has a window of \(1, 9\) in b"),
    "inputs": ([(A, ONE)], {"algorithm": "ssr"}, "'ssr' needs the inputs of layers.*--base, or choose one of sum"),
    "only": ([(A, ONE)], {"only": ["nothing"]}, "'nothing' names no layer of sd1"),
    "scale 0": ([(A, ONE)], {"scale": 0.0}, "leaves nothing: the strength of the whole is 0"),
    "strength 0": ([(A, Strengths(0.0))], {}, "leaves nothing: every file has strength 0"),
    "blocks 0": ([(A, Strengths.read("NONE"))], {}, "strengths and block weights of all changed layers are 0"),
    "none of only": (
        [(replace(A, layers={TEXT: A.layers[TEXT]}, differences={}, windows={}), ONE)],
        {"only": ["convolution"]},
        "leaves nothing: no file changes convolution; allowed are merges that change a layer",
    ),
    "bias": (
        [(A, ONE), (replace(B, differences={f"{OUT}.bias": torch.ones(5)}), ONE)],
        {},
        r"has shapes \(4,\) and \(5,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    files, options, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        merged = merge_files(files, **options)
        [*merged.lora.layers.values(), *merged.lora.differences.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mid=1; down=2", "block weights 2 times"),
        ("inf", "strength is 'inf'"),
        ("te=x", "strength of text encoders is 'x'"),
        ("te=", "strength of text encoders is ''"),
        ("50%", "strength is '50%'"),
        ("0.8;0.5", "have a strength 2 times, 0.8 and 0.5; allowed is once"),
        ("te=1;te=0.2", "have a strength of text encoders 2 times, 1 and 0.2"),
        ("0.8;clip=0.5", "could be a strength or a factor; allowed are te=0.5 .* and blocks=clip=0.5"),
    ],
)
def test_strengths_that_cannot_be_read(text, message):
    with pytest.raises(ConfigurationError, match=message):
        Strengths.read(text)


def test_verification_refuses_other_layers():
    merged = merge_files([(A, ONE)]).lora
    with pytest.raises(ConfigurationError, match="the merged file has, and its files have not, 1 layers"):
        [*verify(merged, [(replace(A, layers={KEY: A.layers[KEY], CONV: A.layers[CONV]}), ONE)])]
    with pytest.raises(ConfigurationError, match="the merged file lacks 1 layers"):
        [*verify(replace(merged, layers={KEY: A.layers[KEY], CONV: A.layers[CONV]}), [(A, ONE)])]


def test_a_recipe_with_a_base_is_none_without_one():
    with pytest.raises(ConfigurationError, match="a was merged with a base, which its recipe names"):
        FileRecipe.of_file(replace(A, metadata={"orthoplex_recipe": '{"base": {}}'}))


def test_verification_of_a_truncation_has_the_floor_of_its_rank():
    merged = merge_files([(A, ONE), (B, ONE)], algorithm="mean", truncation=Truncation(rank=3)).lora
    errors = {item.name: item for item in verify(merged, [(A, ONE), (B, ONE)], algorithm="mean", truncated=True)}
    sizes = torch.linalg.svdvals(sums(KEY, (A, 0.5), (B, 0.5)))
    assert errors[KEY].floor == pytest.approx(float(sizes[3:].norm() / sizes.norm()))
    assert errors[KEY].error == pytest.approx(errors[KEY].floor, rel=1e-4)
    assert errors[f"{OUT}.weight"].error == pytest.approx(errors[f"{OUT}.weight"].floor, rel=1e-4)
    assert errors[f"{OUT}.bias"].error == 0


def test_verification_finds_a_wrong_number():
    merged = merge_files([(A, ONE), (B, ONE)]).lora
    wrong = replace(
        merged, layers={**merged.layers, KEY: LowRank(merged.layers[KEY].up * 1.01, merged.layers[KEY].down)}
    )
    errors = {item.name: item.error for item in verify(wrong, [(A, ONE), (B, ONE)])}
    assert errors[KEY] == pytest.approx(0.01, rel=0.1) and errors[TEXT] < 1e-15


def test_verification_counts_full_weights_that_stand_for_factors():
    """As programs write a fused layer of which one part has a full difference."""
    merged = merge_files([(A, ONE), (B, ONE)]).lora
    layers = {layer: change for layer, change in merged.layers.items() if layer != KEY}
    full = replace(
        merged, layers=layers, differences={**merged.differences, f"{KEY}.weight": sums(KEY, (A, 1), (B, 1))}
    )
    assert all(item.error < 1e-7 for item in verify(full, [(A, ONE), (B, ONE)]))


def test_verification_leaves_out_what_was_left_out():
    strengths = [(A, Strengths.read("te=0")), (B, Strengths.read("0.5; te=0"))]
    merged = merge_files(strengths, only=["cross-attention", "text-encoder"]).lora
    assert [item.name for item in verify(merged, strengths, only=["cross-attention", "text-encoder"])] == [KEY]
    with pytest.raises(ConfigurationError, match="merge is by 'ties'.*allowed for a verification are sum and mean"):
        [*verify(merged, strengths, algorithm="ties")]
