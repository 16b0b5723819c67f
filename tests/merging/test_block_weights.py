"""Block weights as people write them: which layers a text names."""

import re

import pytest

from orthoplex.concepts.layer_table import layer_tables
from orthoplex.errors import ConfigurationError
from orthoplex.merging.block_names import block_map
from orthoplex.merging.block_weights import PRESETS, BlockWeights

NORM = "unet.down_blocks.1.attentions.0.norm"
SD1 = block_map("stable_diffusion", "sd1", [NORM])
SEVENTEEN = "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11".split()
QUERY = "attentions.0.transformer_blocks.0.attn2.to_q"
PUBLISHED = {
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
}


def weights(text: str, blocks=SD1) -> dict[str, float]:
    return BlockWeights.read(text).weights(blocks)


def test_the_lists_of_stable_diffusion():
    assert sorted(SD1.lists) == [17, 26]
    assert list(SD1.lists[17]) == SEVENTEEN
    numbers = [f"{number:02}" for number in range(12)]
    assert list(SD1.lists[26]) == ["BASE", *(f"IN{n}" for n in numbers), "M00", *(f"OUT{n}" for n in numbers)]


def test_a_number_reaches_the_layers_of_its_block():
    given = weights(",".join(str(number) for number in range(17)))
    places = {
        f"unet.down_blocks.0.{QUERY}": 1,
        f"unet.down_blocks.1.{QUERY}": 3,
        NORM: 3,
        f"unet.mid_block.{QUERY}": 7,
        f"unet.up_blocks.1.{QUERY}": 8,
        f"unet.up_blocks.3.{QUERY.replace('attentions.0', 'attentions.2')}": 16,
        "text_encoder.text_model.encoder.layers.0.mlp.fc1": 0,
        "unet.down_blocks.0.downsamplers.0.conv": 0,
        "unet.time_embedding.linear_1": 0,
        "unet.conv_out": 16,
    }
    assert {layer: given[layer] for layer in places} == places


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_are_the_published_numbers(preset):
    assert weights(preset) == weights(PUBLISHED[preset]) == weights(f"lbw={preset.lower()}")


def test_presets_of_the_whole():
    assert {name: set(weights(name).values()) for name in PRESETS[:3]} == {"NONE": {0}, "ALL": {1}, "ALL0.5": {0.5}}


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("down.1", "unet.down_blocks.1.resnets.0.conv1", f"unet.down_blocks.0.{QUERY}"),
        ("unet.down_blocks.1", f"unet.down_blocks.1.{QUERY}", f"unet.up_blocks.1.{QUERY}"),
        ("up 1-2", f"unet.up_blocks.2.{QUERY}", f"unet.up_blocks.3.{QUERY}"),
        ("mid", f"unet.mid_block.{QUERY}", f"unet.up_blocks.3.{QUERY}"),
        ("IN04", f"unet.down_blocks.1.{QUERY}", f"unet.down_blocks.2.{QUERY}"),
        ("in04-m00", f"unet.mid_block.{QUERY}", f"unet.down_blocks.0.{QUERY}"),
        ("input_blocks.4", f"unet.down_blocks.1.{QUERY}", f"unet.down_blocks.2.{QUERY}"),
        ("cross-attention", f"unet.mid_block.{QUERY}", f"unet.mid_block.{QUERY.replace('attn2', 'attn1')}"),
        ("self-attention", f"unet.mid_block.{QUERY.replace('attn2', 'attn1')}", f"unet.mid_block.{QUERY}"),
        ("attention", f"unet.mid_block.{QUERY}", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"),
        ("feed-forward", "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2", f"unet.mid_block.{QUERY}"),
        ("convolution", "unet.mid_block.resnets.0.conv1", "unet.mid_block.attentions.0.proj_in"),
        ("te", "text_encoder.text_model.encoder.layers.0.mlp.fc1", f"unet.mid_block.{QUERY}"),
        ("BASE", "text_encoder.text_model.encoder.layers.0.mlp.fc1", f"unet.mid_block.{QUERY}"),
    ],
)
def test_names_of_parts(name, inside, outside):
    given = weights(f"ALL=0, {name}=0.5")
    assert (given[inside], given[outside]) == (0.5, 0.0)


def test_a_number_is_a_whole_part_of_a_name():
    layers = [f"transformer.transformer_blocks.{number}.attn.to_q" for number in (1, 10, 19)]
    given = weights("transformer_blocks.1=0", block_map(None, None, layers))
    assert list(given.values()) == [0, 1, 1]


def test_the_last_setting_counts():
    given = weights("MIDD, feed-forward=0, mid.attentions=2")
    assert given["unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"] == 2
    assert given["unet.down_blocks.1.attentions.1.transformer_blocks.0.ff.net.2"] == 0


@pytest.mark.parametrize("text", ["MIDD", "1,0.1,0.3", "ALL,down.2=0.1,IN04-IN08=-1", "double 0-18=0.3333333333333333"])
def test_text_is_read_again(text):
    read = BlockWeights.read(text)
    assert read.text == text and BlockWeights.read(read.text) == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", r"2 block weights are given; allowed for sd1 are 17 \(BASE, IN01, … OUT11\) or 26 \("),
        ("R,0", "the weight of block is 'R'; allowed are finite numbers"),
        ("down.2=nan", "the weight of down.2 is 'nan'"),
        ("1,,0", "block weights are '1,,0'; allowed are numbers, one of NONE, ALL"),
        ("MIDD,1", "'1' has no name; allowed are numbers or a preset"),
        ("down.2=0,1", "'1' has no name"),
        ("transformer_blocks.1=0", "'transformer_blocks.1' names no layer of sd1; known are attention"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        weights(text)


def test_presets_of_a_u_net_are_refused_elsewhere():
    blocks = block_map(None, None, ["transformer.layers.0.attention.to_q"])
    with pytest.raises(
        ConfigurationError, match="the preset MIDD names blocks of a U-Net; allowed for files of no known"
    ):
        weights("MIDD", blocks)
    with pytest.raises(ConfigurationError, match="allowed for files of no known family are named parts only"):
        weights("1,0", blocks)


def test_blocks_without_a_number():
    assert BlockWeights.read("MIDD").without_weight(SD1) == tuple(b for b in SD1.blocks if b not in SEVENTEEN)
    assert BlockWeights.read("ALL").without_weight(SD1) == BlockWeights.read("mid=0").without_weight(SD1) == ()


@pytest.mark.parametrize(
    ("family", "version", "lists"),
    [
        ("stable_diffusion", "sd2", {17: ("BASE", "OUT11"), 26: ("BASE", "OUT11")}),
        ("stable_diffusion_xl", "sdxl", {12: ("BASE", "OUT05"), 20: ("BASE", "OUT08")}),
        ("flux", "flux1", {57: ("D00", "S37"), 58: ("BASE", "S37"), 61: ("CLIP", "OUT")}),
        ("chroma", "chroma", {57: ("D00", "S37"), 58: ("BASE", "S37")}),
        ("flux2", "flux2", {56: ("D00", "S47"), 57: ("BASE", "S47")}),
        ("flux2", "flux2-klein-4b", {25: ("D00", "S19"), 26: ("BASE", "S19")}),
        ("qwen_image", "qwen-image", {60: ("transformer_blocks.0", "transformer_blocks.59"), 61: None}),
        (
            "z_image",
            "z-image",
            {30: ("layers.0", "layers.29"), 31: ("BASE", "layers.29"), 34: ("noise_refiner.0", "layers.29"), 35: None},
        ),
        ("ideogram4", "ideogram4", {34: ("layers.0", "layers.33"), 35: ("BASE", "layers.33")}),
    ],
)
def test_lists_of_every_family(family, version, lists):
    blocks = block_map(family, version, [])
    assert sorted(blocks.lists) == sorted(lists)
    for length, ends in lists.items():
        assert len(blocks.lists[length]) == length
        assert ends is None or (blocks.lists[length][0], blocks.lists[length][-1]) == ends


@pytest.mark.parametrize(("family", "version"), [(f, v) for f, table in layer_tables().items() for v in table.versions])
def test_a_list_of_zeros_leaves_nothing(family, version):
    """But text encoders, where the list has no number for them."""
    blocks = block_map(family, version, ["unet.conv_norm_out"] if family.startswith("stable") else [])
    for length, listed in blocks.lists.items():
        given = BlockWeights(tuple([0.0] * length)).weights(blocks)
        left = {blocks.places[layer].block for layer, weight in given.items() if weight}
        assert left <= (set() if {"BASE", "CLIP"} & {*listed} else {"BASE"})


def test_layers_around_the_blocks_of_a_u_net_have_the_first_and_the_last():
    blocks = block_map("stable_diffusion_xl", "sdxl", ["unet.conv_norm_out"])
    given = weights(",".join(["0", "0.5", *["0"] * 17, "2"]), blocks)
    embedded = [layer for layer in given if "time_embedding" in layer or "add_embedding" in layer]
    assert len(embedded) == 4 and {given[layer] for layer in embedded} == {0.5}
    assert given["unet.conv_out"] == given["unet.conv_norm_out"] == 2


def test_flux_names_its_text_encoders():
    blocks = block_map("flux", "flux1", [])
    clip, t5 = (
        "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q",
    )
    given = weights("CLIP=0.5, t5=0", blocks)
    assert (given[clip], given[t5], given["transformer.proj_out"]) == (0.5, 0, 1)
    assert weights("CLIP=0")["text_encoder.text_model.encoder.layers.0.mlp.fc1"] == 0


def test_the_twelve_blocks_of_sdxl():
    twelve = block_map("stable_diffusion_xl", "sdxl", []).lists[12]
    assert twelve == tuple("BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05".split())


OUTSIDE = re.compile(
    r"mod(ulation)?(_img|_txt)?\b|embed|norm|time_|proj_(in|out)$|(img|txt)_in\b|distilled|shortcut|projector|adaln"
    r"|all_final_layer|final_layer|(input|llm_cond)_proj|time_mod_proj",
    re.IGNORECASE,
)
"""Layers of no kind: they modulate, embed, or lead into and out of the blocks."""
VERSIONS = [(family, version) for family, table in layer_tables().items() for version in table.versions]


@pytest.mark.parametrize(("family", "version"), VERSIONS)
def test_every_layer_is_of_one_kind_or_outside_of_all(family, version):
    """But for the fused layers of single blocks, which are attention and feed-forward at once."""
    main = {"attention", "feed-forward", "convolution", "text-encoder"}
    for layer, place in block_map(family, version, []).places.items():
        kinds = place.kinds & main
        if "single_transformer_blocks" in layer and len(kinds) == 2:
            assert re.search(r"\.(proj_out|to_out|to_qkv_mlp_proj)$", layer) and "convolution" not in kinds
        else:
            assert len(kinds) == 1 or (not kinds and OUTSIDE.search(layer)), layer


def test_a_fused_layer_is_of_both_kinds():
    flux, fused = block_map("flux", "flux1", []), "transformer.single_transformer_blocks.3.proj_out"
    assert weights("attention=0", flux)[fused] == weights("feed-forward=0", flux)[fused] == 0
    assert weights("ALL=0, attention=1, feed-forward=0.5", flux)[fused] == 0.5
    assert weights("ALL=0, attention=1", flux)["transformer.proj_out"] == 0
