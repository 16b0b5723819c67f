"""Which layers the selections choose, and their names."""

from __future__ import annotations

import pytest
from torch import nn

from orthoplex.errors import ConfigurationError
from orthoplex.models.layer_names import SELECTIONS, component_name, select_linear_layers
from tests.pico import linear_layers

BLOCK = "unet.mid_block.attentions.0.transformer_blocks.0"
KV = {f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn2.to_v"}
CROSS = KV | {f"{BLOCK}.attn2.to_q", f"{BLOCK}.attn2.to_out.0"}
ATTENTION = CROSS | {name.replace("attn2", "attn1") for name in CROSS}
LINEAR = ATTENTION | {
    f"{BLOCK}.ff.net.0.proj",
    f"{BLOCK}.ff.net.2",
    "unet.mid_block.attentions.0.proj_in",
    "unet.mid_block.attentions.0.proj_out",
}


@pytest.mark.parametrize(("selection", "expected"), list(zip(SELECTIONS, (KV, CROSS, ATTENTION, LINEAR), strict=True)))
def test_selections_of_one_block_written_out(pico, selection, expected):
    chosen = linear_layers(pico, selection)
    assert {name for name in chosen if name.startswith("unet.mid_block.")} == expected
    assert all(isinstance(layer, nn.Linear) for layer in chosen.values())
    assert len(chosen) == 4 * len(expected), "four transformers: one down, one middle, two up"


def test_each_selection_holds_the_one_before(pico):
    chosen = [set(linear_layers(pico, selection, text_encoder=True)) for selection in SELECTIONS]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]


def test_time_embeddings_are_never_chosen(pico):
    assert "unet.time_embedding.linear_1" in pico.family.every_layer()
    assert not any("time_emb" in name for name in linear_layers(pico, "linear", text_encoder=True))


def test_text_encoder_layers(pico):
    prefix = "text_encoder.text_model.encoder.layers.0"
    attention = {f"{prefix}.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
    for selection in SELECTIONS:
        chosen = linear_layers(pico, selection, text_encoder=True)
        expected = attention | ({f"{prefix}.mlp.fc1", f"{prefix}.mlp.fc2"} if selection == "linear" else set())
        assert {name for name in chosen if name.startswith(prefix)} == expected
        assert not any(name.startswith("text_encoder") for name in linear_layers(pico, selection))


def test_the_names_lead_to_the_modules(pico):
    layers = linear_layers(pico, "linear", text_encoder=True)
    assert layers[f"{BLOCK}.attn2.to_k"] is (
        pico.pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    )
    assert layers.items() <= pico.family.every_layer().items()


def test_the_inner_text_model_is_always_named_once():
    assert component_name("text_encoder", "encoder.layers.0") == "text_encoder.text_model.encoder.layers.0"
    assert component_name("text_encoder", "text_model.encoder.layers.0") == "text_encoder.text_model.encoder.layers.0"
    assert component_name("unet", "mid_block") == "unet.mid_block"


def test_convolutional_projections_are_left_out():
    block = nn.ModuleDict({"attentions": nn.ModuleList([nn.ModuleDict({"proj_in": nn.Conv2d(2, 2, 1)})])})
    assert select_linear_layers({"unet": block, "text_encoder": nn.Module()}, "linear") == {}


def test_an_unknown_selection_is_refused_with_the_list(pico):
    with pytest.raises(
        ConfigurationError, match="selection 'everything' is unknown, allowed are " + ", ".join(SELECTIONS)
    ):
        linear_layers(pico, "everything")
