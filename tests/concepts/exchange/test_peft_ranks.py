"""Ranks of single layers as PEFT reads them from the settings of a file in the style of diffusers."""

import json

import torch
from peft.utils.other import get_pattern_key

from orthoplex.concepts.exchange import LoraFile, read_lora, write_lora
from orthoplex.files import read_header
from tests.concepts.exchange.test_writing import change


def test_the_rank_of_a_layer_is_not_that_of_another_whose_name_ends_so(tmp_path):
    """FLUX.1's ``proj_out`` beside ``single_transformer_blocks.0.proj_out``."""
    outer, inner = "transformer.proj_out", "transformer.single_transformer_blocks.0.proj_out"
    layers = {
        outer: change(outer, rank=4, version="flux1", family="flux"),
        inner: change(inner, rank=8, version="flux1", family="flux"),
        "transformer.context_embedder": change("transformer.context_embedder", 8, "flux1", "flux"),
    }
    path = tmp_path / "a.safetensors"
    write_lora(LoraFile("a", "diffusers", "flux", "flux1", layers), path, style="diffusers", keep_ranks=True)
    settings = json.loads(read_header(path).metadata["lora_adapter_metadata"])
    assert settings["transformer.rank_pattern"] == {"^proj_out": 4}
    names = [layer.removeprefix("transformer.") for layer in layers]
    ranks = [get_pattern_key(settings["transformer.rank_pattern"], name) for name in names]
    assert ranks == ["^proj_out", names[1], names[2]]
    again = read_lora(path)
    for layer, own in layers.items():
        torch.testing.assert_close(again.layers[layer].delta(), own.delta())
