"""Layers under the names that kohya's programs give them."""

from __future__ import annotations

import pytest

from orthoplex.concepts.flat_names import flat_names
from orthoplex.concepts.layer_table import layer_table, layer_tables
from orthoplex.errors import ConfigurationError


@pytest.mark.parametrize(
    ("layer", "version", "flat"),
    [
        ("unet.mid_block.attentions.0.proj_in", "sd1", "lora_unet_mid_block_attentions_0_proj_in"),
        ("unet.down_blocks.1.attn2.to_out.0", "vignette", "lora_unet_down_blocks_1_attn2_to_out_0"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", "sd1", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
        ("text_encoder.a", "a model that no table knows", "lora_te_a"),
        ("text_encoder_2.a", "a model that no table knows", "lora_te2_a"),
        ("denoiser.attn2.to_k", "a model that no table knows", "lora_denoiser_attn2_to_k"),
        ("transformer.blocks.0.to_k", "a model that no table knows", "lora_transformer_blocks_0_to_k"),
    ],
)
def test_a_layer_has_one_name(layer, version, flat):
    assert flat_names([layer], version) == {layer: flat}


def test_text_encoders_are_numbered_where_there_are_several():
    layers = ["text_encoder_3.a", "unet.b", "text_encoder_2.a", "text_encoder.a"]
    assert list(flat_names(layers, "unknown").values()) == ["lora_te1_a", "lora_te2_a", "lora_te3_a", "lora_unet_b"]


def test_two_layers_of_one_name_are_refused():
    message = "layers 'unet.a.b_c' and 'unet.a_b.c' have the same flat name 'lora_unet_a_b_c', allowed are different"
    with pytest.raises(ConfigurationError, match=message):
        flat_names(["unet.a_b.c", "unet.a.b_c", "unet.x"], "sd1")


@pytest.mark.parametrize("version", [version for table in layer_tables().values() for version in table.versions])
def test_a_version_has_one_naming(version):
    """All of a denoiser's layers are named as kohya names them, or all have their paths."""
    names = flat_names(layer_table(version).versions[version], version)
    layers = [layer for layer in names if not layer.startswith("text_encoder")]
    paths = [names[layer] == "lora_" + layer.replace(".", "_") for layer in layers]
    assert all(paths) or all(names[layer].startswith("lora_unet_") for layer in layers)
