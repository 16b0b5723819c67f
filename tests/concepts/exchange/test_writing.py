import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.adapters import LowRank
from orthoplex.concepts import load_concept
from orthoplex.concepts.exchange import STYLES, LoraFile, lora_of_concept, read_lora, write_lora
from orthoplex.concepts.exchange.embedding_files import file_names
from orthoplex.concepts.exchange.embeddings import read_embedding
from orthoplex.concepts.exchange.modules import WrittenModule
from orthoplex.concepts.exchange.names import versions
from orthoplex.concepts.exchange.writing import files_written, written_rank
from orthoplex.concepts.layer_table import OriginalModule, layer_table, layer_tables
from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.files import read_header, write_tensors
from tests.concepts.exchange.corpus import CORPUS
from tests.concepts.exchange.test_reading import ANNA

K = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
FUSED = "diffusion_model.layers.0.attention.qkv"
PARTS = [f"transformer.layers.0.attention.to_{part}" for part in "qkv"]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def change(
    layer: str, rank: int = 2, version: str = "vignette", family: str = "stable_diffusion", seed: int = 0
) -> LowRank:
    out, *rest = layer_tables()[family].versions[version][layer]
    return LowRank(numbers(out, rank, seed=seed), numbers(rank, math.prod(rest), seed=seed + 1))


@pytest.fixture
def lora() -> LoraFile:
    layers = {K: change(K), CONV: change(CONV, 3), TEXT: change(TEXT, 1)}
    return LoraFile("anna", "diffusers", "stable_diffusion", "vignette", layers, {CONV: (3, 3)})


@pytest.fixture
def fused() -> LoraFile:
    """Queries and keys share their down, values have another."""
    down, other = numbers(1, 3840), numbers(2, 3840, seed=1)
    layers = dict(
        zip(PARTS, [LowRank(numbers(3840, len(each), seed=5), each) for each in (down, down, other)], strict=True)
    )
    return LoraFile("anna", "diffusers", "z_image", "z-image", layers)


@pytest.mark.parametrize("style", [style for style in STYLES if style != "bare"])
def test_what_is_written_is_read_bit_for_bit(lora, tmp_path, style):
    path = tmp_path / "a.safetensors"
    assert write_lora(lora, path, style=style) == [path]
    again = read_lora(path)
    assert (again.style, again.family, again.version, again.windows) == (style, lora.family, lora.version, lora.windows)
    assert again.layers.keys() == lora.layers.keys() and K in again.layers
    for layer, factors in lora.layers.items():
        assert torch.equal(again.layers[layer].delta(), factors.delta())
    header = read_header(path)
    assert {entry.dtype for entry in header.entries.values()} == {"F16"}
    write_lora(again, tmp_path / "b.safetensors", style=style)
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_one_rank_and_alpha_equal_to_it(lora, tmp_path):
    write_lora(lora, tmp_path / "a.safetensors", style="kohya")
    tensors = load_file(tmp_path / "a.safetensors")
    assert {tensor.item() for key, tensor in tensors.items() if key.endswith(".alpha")} == {3}
    assert tensors[f"{KOHYA}.lora_down.weight"].shape == (3, 192) and tensors[f"{KOHYA}.lora_up.weight"].shape == (
        128,
        3,
    )
    assert tensors[f"{KOHYA}.alpha"].shape == () and not tensors[f"{KOHYA}.lora_down.weight"][2].any()
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape == (3, 96, 3, 3)
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"].shape == (96, 3, 1, 1)


def test_ranks_may_be_kept(lora, tmp_path):
    write_lora(lora, tmp_path / "a.safetensors", style="kohya", keep_ranks=True)
    tensors = load_file(tmp_path / "a.safetensors")
    assert sorted(tensor.item() for key, tensor in tensors.items() if key.endswith(".alpha")) == [1, 2, 3]


def test_diffusers_gets_settings_that_it_reads(lora, tmp_path):
    write_lora(lora, tmp_path / "a.safetensors", style="diffusers", keep_ranks=True)
    settings = json.loads(read_header(tmp_path / "a.safetensors").metadata["lora_adapter_metadata"])
    assert (settings["unet.r"], settings["unet.lora_alpha"], settings["text_encoder.r"]) == (3, 3, 1)
    assert settings["unet.rank_pattern"] == settings["unet.alpha_pattern"] == {K.removeprefix("unet."): 2}
    assert settings["text_encoder.target_modules"] == ["encoder.layers.0.self_attn.q_proj"]


@pytest.mark.parametrize(
    ("own", "asked", "name"),
    [
        (torch.float16, None, "F16"),
        (torch.bfloat16, None, "BF16"),
        (torch.float32, None, "F16"),  # halves are exact
        (torch.float32, torch.bfloat16, "BF16"),
        (torch.float16, torch.float32, "F32"),
    ],
)
def test_one_type_that_loses_nothing(tmp_path, own, asked, name):
    factors = LowRank(torch.full((128, 1), 0.5, dtype=own), torch.full((1, 192), 3.0, dtype=own))
    lora = LoraFile("a", "kohya", "stable_diffusion", "vignette", {K: factors})
    write_lora(lora, tmp_path / "a.safetensors", style="kohya", dtype=asked)
    assert {entry.dtype for entry in read_header(tmp_path / "a.safetensors").entries.values()} == {name}


def test_types_that_differ_become_float32_where_they_must(tmp_path):
    factors = LowRank(torch.full((128, 1), 1 / 3), torch.ones(1, 192).half())
    write_lora(
        LoraFile("a", "kohya", "stable_diffusion", "vignette", {K: factors}), tmp_path / "a.safetensors", style="kohya"
    )
    assert {entry.dtype for entry in read_header(tmp_path / "a.safetensors").entries.values()} == {"F32"}


@pytest.mark.parametrize(
    ("own", "dtype", "common", "rank"),
    [
        (4, torch.float16, None, 4),
        (4, torch.float16, 8, 8),
        (257, torch.bfloat16, None, 258),
        (2049, torch.float16, None, 2050),
        (257, torch.float32, None, 257),
    ],
)
def test_a_rank_that_the_type_holds_as_alpha(own, dtype, common, rank):
    assert written_rank(own, dtype, common) == rank


def test_fused_layers_share_equal_downs_and_have_others_apart(fused, tmp_path):
    write_lora(fused, tmp_path / "a.safetensors", style="comfy")
    tensors = load_file(tmp_path / "a.safetensors")
    assert tensors[f"{FUSED}.lora_A.weight"].shape == (3, 3840)  # not 1 + 1 + 2
    assert not tensors[f"{FUSED}.lora_B.weight"][:7680, 1:].any() and f"{FUSED}.alpha" not in tensors
    again = read_lora(tmp_path / "a.safetensors", family="z_image")
    for layer in PARTS:
        own, other = again.layers[layer], fused.layers[layer]
        assert torch.equal(LowRank(own.up[:9], own.down).delta(), LowRank(other.up[:9], other.down).delta())
    assert again.layers[PARTS[0]].down.data_ptr() == again.layers[PARTS[1]].down.data_ptr()


def test_a_part_of_fused_layers_leaves_zeros(fused, tmp_path):
    write_lora(replace(fused, layers={PARTS[1]: fused.layers[PARTS[1]]}), tmp_path / "a.safetensors", style="comfy")
    again = read_lora(tmp_path / "a.safetensors")
    assert torch.equal(again.layers[PARTS[1]].up, fused.layers[PARTS[1]].up)
    assert not again.layers[PARTS[0]].up.any() and not again.layers[PARTS[2]].up.any()


def test_halves_are_swapped_both_ways(tmp_path):
    layer = "transformer.norm_out.linear"
    factors = change(layer, 1, "flux1", "flux")
    write_lora(LoraFile("a", "diffusers", "flux", "flux1", {layer: factors}), tmp_path / "a.safetensors", style="comfy")
    up = load_file(tmp_path / "a.safetensors")["diffusion_model.final_layer.adaLN_modulation.1.lora_B.weight"]
    assert torch.equal(up[:3072], factors.up[3072:])
    again = read_lora(tmp_path / "a.safetensors", family="flux")
    assert torch.equal(again.layers[layer].up, factors.up)


def test_differences_of_weights_and_biases(lora, tmp_path):
    values = {f"{TEXT}.weight": numbers(192, 192), f"{CONV}.bias": numbers(96)}
    layers = {layer: lora.layers[layer] for layer in (K, CONV)}
    write_lora(replace(lora, layers=layers, differences=values), tmp_path / "a.safetensors", style="kohya")
    again = read_lora(tmp_path / "a.safetensors")
    assert again.layers.keys() == layers.keys() and again.differences.keys() == values.keys()
    assert all(torch.equal(again.differences[name], tensor) for name, tensor in values.items())


@pytest.mark.parametrize(("family", "version"), [*versions()])
@pytest.mark.parametrize("style", ["kohya", "comfy"])
def test_norms_are_written_and_read(tmp_path, family, version, style):
    shapes = layer_tables()[family].weights[version]
    norms = [layer for layer, shape in shapes.items() if len(shape) == 1 and not layer.startswith("text_conditioner")]
    chosen = dict.fromkeys((norms[0], norms[len(norms) // 2], norms[-1]))
    values = {f"{norm}.{kind}": numbers(*shapes[norm]) for norm in chosen for kind in ("weight", "bias")}
    lora = LoraFile("a", style, family, version, {}, differences=values)
    write_lora(lora, tmp_path / "a.safetensors", style=style)
    assert {key.rpartition(".")[2] for key in read_header(tmp_path / "a.safetensors").entries} == {"diff", "diff_b"}
    again = read_lora(tmp_path / "a.safetensors", family=version)
    assert again.differences.keys() == values.keys() and not again.layers
    assert all(torch.equal(again.differences[name], value) for name, value in values.items())


@pytest.mark.parametrize(
    ("version", "module", "layer"),
    [
        ("sd1", "lycoris_conv_norm_out", "unet.conv_norm_out"),
        ("sdxl", "lora_unet_out_0", "unet.conv_norm_out"),
        ("sdxl", "diffusion_model.middle_block.0.in_layers.0", "unet.mid_block.resnets.0.norm1"),
        ("sdxl", "lora_te2_text_model_final_layer_norm", "text_encoder_2.text_model.final_layer_norm"),
        ("flux1", "lycoris_transformer_blocks_0_attn_norm_q", "transformer.transformer_blocks.0.attn.norm_q"),
        (
            "flux1",
            "diffusion_model.double_blocks.0.txt_attn.norm.key_norm.scale",
            "transformer.transformer_blocks.0.attn.norm_added_k",
        ),
        ("z-image", "diffusion_model.layers.29.attention.q_norm", "transformer.layers.29.attention.norm_q"),
    ],
)
@pytest.mark.parametrize("ending", [".w_norm", ".diff"])
def test_norms_of_other_programs_are_read(tmp_path, version, module, layer, ending):
    value = numbers(*layer_table(version).weights[version][layer])
    write_tensors({module + ending: value}, tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors", family=version)
    assert lora.left_out == {} and [*lora.differences] == [f"{layer}.weight"]
    assert torch.equal(lora.differences[f"{layer}.weight"], value)


def test_a_difference_takes_the_products_of_its_module():
    layers = {"a": LowRank(torch.ones(2, 1), torch.tensor([[1.0, 2.0, 3.0]]))}
    lora = LoraFile("x", "comfy", None, None, layers, differences={"b.weight": torch.full((2, 3), 7.0)})
    shapes = {"a": (2, 3), "b": (2, 3), "c": (1, 3)}
    module = WrittenModule("abc", OriginalModule(("a", "b", "c")), shapes, lora, 0, (torch.float32,), True, False)
    ((ending, shape, value),) = module.differences(STYLES["comfy"].spelling)
    assert (ending, shape) == (".diff", (5, 3))
    assert value().tolist() == [[1, 2, 3], [1, 2, 3], [7, 7, 7], [7, 7, 7], [0, 0, 0]]


def test_a_file_of_no_table_keeps_its_names(tmp_path):
    lora = LoraFile("a", "kohya", None, None, {"lora_unet_tower_0": LowRank(numbers(4, 1), numbers(1, 3))})
    write_lora(lora, tmp_path / "a.safetensors", style="kohya")
    again = read_lora(tmp_path / "a.safetensors")
    assert torch.equal(again.layers["lora_unet_tower_0"].delta(), lora.layers["lora_unet_tower_0"].delta())


def test_a_base_of_no_version_has_kohya_names_too(lora, tmp_path):
    write_lora(replace(lora, version=None, windows=lora.windows), tmp_path / "a.safetensors", style="kohya")
    write_lora(lora, tmp_path / "b.safetensors", style="kohya")
    assert read_header(tmp_path / "a.safetensors").entries == read_header(tmp_path / "b.safetensors").entries


def test_the_family_is_clear_in_our_own_files(tmp_path):
    write_tensors(CORPUS["FLUX.1 or Chroma"].tensors, tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors", family="flux")
    write_lora(lora, tmp_path / "b.safetensors", style="kohya")
    assert read_lora(tmp_path / "b.safetensors").family == "flux"


def test_metadata_stays_but_for_hashes_and_ranks(lora, tmp_path):
    pairs = {
        "ss_network_dim": "128",
        "ss_network_alpha": "1",
        "ss_steps": "9",
        "sshs_model_hash": "a",
        "modelspec.title": "b",
    }
    write_lora(replace(lora, metadata=pairs), tmp_path / "a.safetensors", style="kohya")
    assert read_header(tmp_path / "a.safetensors").metadata == {
        "format": "pt",
        "modelspec.architecture": "vignette/lora",
        "ss_network_dim": "3",
        "ss_network_alpha": "3",
        "ss_steps": "9",
        "modelspec.title": "b",
    }


@pytest.mark.parametrize(("place", "count"), [("files", 2), ("bundle", 1), ("none", 1)])
def test_embeddings_lie_beside_or_inside_or_nowhere(lora, tmp_path, place, count):
    vectors = {"text_encoder": numbers(2, 192).float()}
    lora = replace(lora, embeddings={"<anna>": vectors})
    written = write_lora(lora, tmp_path / "a.safetensors", style="kohya", embeddings=place)
    assert [path.name for path in written] == ["a.safetensors", "a.anna.safetensors"][:count]
    last = read_lora(written[-1])
    assert [*last.embeddings] == {"files": ["<anna>"], "bundle": ["<anna>"], "none": []}[place]
    for own in last.embeddings.values():
        assert torch.equal(own["text_encoder"], vectors["text_encoder"])
    if place == "files":
        assert write_lora(last, tmp_path / "b.safetensors", style="kohya") == [tmp_path / "b.safetensors"]
        assert [*read_lora(tmp_path / "b.safetensors").embeddings] == ["<anna>"]


@pytest.mark.parametrize("encoders", [["text_encoder"], ["text_encoder", "text_encoder_2"]])
def test_an_embedding_of_its_own_file_has_its_token(tmp_path, encoders):
    """Also where keys name text encoders; of one text encoder the token is the key, as diffusers reads it."""
    widths = {"text_encoder": 768, "text_encoder_2": 1280}
    vectors = {encoder: numbers(2, widths[encoder]).float() for encoder in encoders}
    lora = LoraFile("a", "kohya", "stable_diffusion_xl", "sdxl", {}, embeddings={"<otto>": vectors})
    write_lora(lora, tmp_path / "other.safetensors", style="kohya")
    assert [*read_lora(tmp_path / "other.safetensors").embeddings] == ["<otto>"]
    assert [*read_embedding(tmp_path / "other.safetensors")] == ["<otto>"]
    if len(encoders) == 1:
        assert [*read_header(tmp_path / "other.safetensors").entries] == ["<otto>"]


@pytest.mark.parametrize("there", ["a.safetensors", "a.anna.safetensors", "a.anna-2.safetensors"])
def test_no_file_is_written_where_one_of_them_is_there(lora, tmp_path, there):
    vectors = {"text_encoder": numbers(2, 192).float()}
    lora = replace(lora, embeddings={"<anna>": vectors, "anna": vectors})
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigurationError, match=f"output .*{there} exists; give another name, or --overwrite"):
        write_lora(lora, tmp_path / "a.safetensors", style="kohya", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [there] and (tmp_path / there).read_text() == "mine"
    written = write_lora(lora, tmp_path / "a.safetensors", style="kohya")
    assert written == files_written(lora, tmp_path / "a.safetensors") and len(written) == 3


def test_bundled_embeddings_have_the_type_that_is_asked_for(lora, tmp_path):
    lora = replace(lora, embeddings={"<anna>": {"text_encoder": numbers(2, 192).float()}})
    path = tmp_path / "a.safetensors"
    write_lora(lora, path, style="kohya", embeddings="bundle", dtype=torch.bfloat16)
    assert {entry.dtype for entry in read_header(path).entries.values()} == {"BF16"}


def test_hashes_of_the_old_file_are_not_passed_on(lora, tmp_path):
    pairs = dict.fromkeys(("sshs_model_hash", "sshs_legacy_hash", "sshash_a", "modelspec.hash_sha256"), "ab")
    write_lora(replace(lora, metadata={**pairs, "ss_tag": "b"}), tmp_path / "a.safetensors", style="kohya")
    metadata = read_header(tmp_path / "a.safetensors").metadata
    assert "ss_tag" in metadata and not pairs.keys() & metadata.keys()


@pytest.mark.parametrize(
    ("tokens", "names"),
    [
        (["<anna>", "<anna>_1"], ["anna", "anna_1"]),
        (["anna", "<anna>", "Anna", "anna?"], ["anna", "anna-2", "Anna-3", "anna-4"]),
        (["a/b\\c:d*e", 'a"b|c d', "..", "", "\u2605"], ["abcde", "abcd", "token", "token-2", "token-3"]),
        (["Ju\u0308ne.v2.", "x" * 300], ["J\u00fcne.v2", "x" * 64]),
    ],
)
def test_embeddings_have_names_of_files(tokens, names):
    assert file_names(tokens) == dict(zip(tokens, names, strict=True))


@pytest.mark.parametrize("style", [style for style in STYLES if style != "bare"])
def test_a_concept_of_two_vectors_has_one_embedding_beside(tmp_path, style):
    written = write_lora(lora_of_concept(load_concept(ANNA)), tmp_path / "a.safetensors", style=style)
    assert [path.name for path in written] == ["a.safetensors", "a.anna.safetensors"]
    assert [vectors["text_encoder"].shape for vectors in read_lora(written[1]).embeddings.values()] == [(2, 192)]


@pytest.mark.parametrize(
    ("changes", "options", "error", "words"),
    [
        ({}, {"style": "civitai"}, ConfigurationError, "style 'civitai' is unknown, allowed: kohya, comfy"),
        ({}, {"style": "kohya", "dtype": torch.float64}, ConfigurationError, "a LoRA file of torch.float64 was asked"),
        (
            {"family": None},
            {"style": "kohya"},
            ConfigurationError,
            "in its own style 'diffusers' alone, not in 'kohya'",
        ),
        ({"version": None}, {"style": "comfy"}, ConfigurationError, "style diffusers or kohya alone, not in 'comfy'"),
        ({}, {"style": "bare"}, ConfigurationError, f"'{TEXT}' has no name in style 'bare'"),
        (
            {"differences": {"unet.conv_norm.weight": torch.ones(3)}},
            {"style": "kohya"},
            ConfigurationError,
            "'unet.conv_norm' has no name in style 'kohya'",
        ),
        (
            {"differences": {f"{K}.bias": torch.ones(128)}},
            {"style": "diffusers"},
            ConfigurationError,
            "changes by a full difference of its bias, which this style has no key for",
        ),
        (
            {"embeddings": {"a": {"text_encoder": torch.ones(1, 192)}}},
            {"style": "diffusers", "embeddings": "bundle"},
            ConfigurationError,
            "style 'diffusers' bundles no embeddings",
        ),
        (
            {"layers": {K: LowRank(torch.full((128, 1), 1e6), torch.ones(1, 192))}},
            {"style": "kohya", "dtype": torch.float16},
            OutputError,
            f"tensor '{KOHYA}.lora_up.weight' holds 1e+06, which float16 cannot hold",
        ),
    ],
)
def test_what_a_style_cannot_hold_is_named(lora, tmp_path, changes, options, error, words):
    with pytest.raises(error) as raised:
        write_lora(replace(lora, **changes), tmp_path / "a.safetensors", **options)
    assert words in str(raised.value) and not list(tmp_path.iterdir())


def test_the_name_ends_in_safetensors(lora, tmp_path):
    with pytest.raises(OutputError, match="is named"):
        write_lora(lora, tmp_path / "a.pt", style="kohya")
