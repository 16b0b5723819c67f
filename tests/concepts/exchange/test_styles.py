from collections import Counter

import pytest

from orthoplex.concepts.exchange.names import likely_versions, read_names, versions
from orthoplex.concepts.exchange.respelling import respelled
from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.concepts.layer_table import layer_tables

NAMED = [(style, *version) for style in STYLES for version in versions()]
K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(("style", "family", "version"), NAMED)
def test_a_name_means_one_module_and_every_layer_is_written_once(style, family, version):
    table, form = layer_tables()[family], STYLES[style]
    meaning: dict[str, tuple[str, ...]] = {}
    for name, module in form.read_names(table, version):
        assert meaning.setdefault(name, module.layers) == module.layers
    written = list(form.written_names(table, version))
    layers = Counter(layer for _, module in written for layer in module.layers)
    assert set(layers.values()) == {1} and len({name for name, _ in written}) == len(written)
    assert all(meaning[name] == module.layers for name, module in written)
    if style == "diffusers":
        assert layers.keys() == table.weights[version].keys()


@pytest.mark.parametrize(
    ("style", "version", "name", "layers"),
    [
        ("kohya", "sd1", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", [K]),
        ("kohya", "sd1", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k", [K]),
        ("kohya", "sd1", "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", [K]),
        ("comfy", "sd1", "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k", [K]),
        ("bare", "sd1", K.removeprefix("unet."), [K]),
        ("diffusers", "sd1", K, [K]),
        (
            "kohya",
            "sdxl",
            "lora_te2_text_model_encoder_layers_0_mlp_fc1",
            ["text_encoder_2.text_model.encoder.layers.0.mlp.fc1"],
        ),
        (
            "comfy",
            "sdxl",
            "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
            ["text_encoder_2.text_model.encoder.layers.0.mlp.fc1"],
        ),
        (
            "comfy",
            "flux1",
            "diffusion_model.double_blocks.0.img_attn.qkv",
            [f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"],
        ),
    ],
)
def test_names_mean_layers(style, version, name, layers):
    family = next(family for family, each in versions() if each == version)
    named = read_names(family, version)[name]
    assert (named.style, list(named.module.layers)) == (style, layers)


@pytest.mark.parametrize(
    ("key", "usual"),
    [
        ("base_model.model.a.lora_A.weight", "a.lora_A.weight"),
        ("unet.b.attn1.processor.to_out_lora.up.weight", "unet.b.attn1.to_out.0.lora.up.weight"),
        ("unet.b.attn1.processor.to_q_lora.up.weight", "unet.b.attn1.to_q.lora.up.weight"),
        ("double_blocks.3.processor.proj_lora2.up.weight", "double_blocks.3.txt_attn.proj.lora.up.weight"),
        ("double_blocks.3.processor.qkv_lora1.down.weight", "double_blocks.3.img_attn.qkv.lora.down.weight"),
        ("single_blocks.37.processor.proj_lora.down.weight", "single_blocks.37.linear2.lora.down.weight"),
        (f"{K}.lora_A.weight", f"{K}.lora_A.weight"),
    ],
)
def test_rare_keys_get_the_usual_spelling(key, usual):
    assert respelled(key) == usual


def test_families_without_such_names_are_not_worked_out():
    likely = {version for _, version in likely_versions([f"lora_{K.replace('.', '_')}"])}
    assert {"sd1", "sd2"} <= likely and not likely & {"flux1", "z-image", "qwen-image", "vignette"}


@pytest.mark.parametrize(
    ("name", "style"),
    [("lora_unet_x_y", "kohya"), ("diffusion_model.x.y", "comfy"), ("transformer.x", "diffusers"), ("x.y", "bare")],
)
def test_names_that_no_table_knows_have_a_style(name, style):
    assert next(each for each, form in STYLES.items() if form.fits(name)) == style


def test_a_number_of_another_text_encoder_is_not_taken_where_only_its_blocks_are_fewer():
    """SDXL's first text encoder has 12 blocks, its second 32; in FLUX.1 no name is of two encoders."""
    sdxl, flux = read_names("stable_diffusion_xl", "sdxl"), read_names("flux", "flux1")
    assert "lora_te2_text_model_encoder_layers_20_self_attn_q_proj" in sdxl
    for name in ("lora_te1_text_model_encoder_layers_20_self_attn_q_proj", "text_model.encoder.layers.20.mlp.fc1"):
        assert name not in sdxl
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj" in flux
