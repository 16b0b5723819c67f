"""What layers see, by family, without torch."""

import subprocess
import sys
from fnmatch import fnmatchcase

import pytest

from orthoplex.concepts.layer_table import LayerTable, OriginalModule, component_of, layer_table, layer_tables

TABLE = LayerTable.from_json(
    "some",
    {
        "components": {"net": "denoiser", "reader": "text encoder"},
        "rules": [["reader.*", "text"], ["net.*.keys", "text"], ["net.time.*", "time"], ["net.*", "picture"]],
        "versions": {"one": {"net.a.keys": [2, 3], "net.b": [2, 3, 1, 1]}, "two": "one"},
        "encoder_tags": {"reader": {"kohya": "te1", "comfy": "clip_l"}},
        "kohya_names": "original",
        "original_modules": {
            "one": {"blocks.{3-4}": {"qkv": ["net.{}.q", "net.{}.k"], "out": ["net.{}.o.0"]}, "last": ["net.b"]},
            "two": "one",
        },
        "swapped_halves": ["last"],
    },
)


@pytest.mark.parametrize(
    ("layer", "sees", "reads"),
    [
        ("net.a.keys", "text", True),
        ("net.a.keys.more", "picture", False),
        ("net.time.a", "time", False),
        ("reader.a", "text", False),
        ("other.a", "both", False),
        ("", "both", False),
    ],
)
def test_the_first_rule_that_fits_counts(layer, sees, reads):
    assert TABLE.sees(layer) == sees and TABLE.reads_features(layer) is reads


def test_a_version_may_equal_another():
    assert TABLE.versions["two"] == TABLE.versions["one"] == {"net.a.keys": (2, 3), "net.b": (2, 3, 1, 1)}


def test_norms_are_weights_and_no_layers():
    values = {"components": {}, "rules": [], "versions": {"one": {"net": {"a": [2, 3], "norm": [3]}}}}
    table = LayerTable.from_json("some", values)
    assert table.versions["one"] == {"net.a": (2, 3)} and table.weights["one"] == {"net.a": (2, 3), "net.norm": (3,)}


def test_original_modules_are_those_of_every_block():
    fused = {f"blocks.{i}.qkv": OriginalModule((f"net.{i}.q", f"net.{i}.k")) for i in (3, 4)}
    single = {f"blocks.{i}.out": OriginalModule((f"net.{i}.o.0",)) for i in (3, 4)}
    assert (
        TABLE.original_modules("two")
        is TABLE.original_modules("one")
        == {
            **fused,
            **single,
            "last": OriginalModule(("net.b",), swapped_halves=True),
        }
    )
    assert TABLE.original_modules("three") == {}
    assert TABLE.family == "some" and TABLE.kohya_names == "original"
    assert TABLE.encoder_tags["reader"]["kohya"] == "te1"


def test_versions_are_counted_and_listed_without_their_layers():
    assert list(TABLE.versions) == ["one", "two"] and len(TABLE.versions) == 2 and "three" not in TABLE.versions


def test_every_version_is_in_one_table():
    versions = [version for table in layer_tables().values() for version in table.versions]
    assert len(versions) == len(set(versions))
    assert all(layer_table(version) is table for table in layer_tables().values() for version in table.versions)
    assert all(family == table.family for family, table in layer_tables().items())


def test_versions_lead_to_their_table():
    assert layer_table("sd2-v") is layer_table("sd2") is layer_table("vignette") is not None
    assert layer_table("unheard-of") is None


def test_it_needs_no_torch():
    code = (
        "import sys; from orthoplex.concepts.layer_table import layer_table; "
        "print(len(layer_table('sd1').versions['sd1']) > 300, 'torch' in sys.modules, 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


VERSIONS = [(table, version) for table in layer_tables().values() for version in table.versions]


@pytest.mark.parametrize(("table", "version"), VERSIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_layer_of_a_denoiser_is_in_one_original_module(table, version):
    shapes = table.versions[version] if version == "ideogram4" else table.weights[version]  # its norms have no names
    layers = [layer for module in table.original_modules(version).values() for layer in module.layers]
    encoders = tuple(f"{encoder}." for encoder in table.encoder_tags)
    assert sorted(layers) == sorted(layer for layer in shapes if not layer.startswith(encoders))
    for module in table.original_modules(version).values():
        assert len({shapes[layer][1:] for layer in module.layers}) == 1, "fused layers have one input"
        assert not module.swapped_halves or (len(module.layers) == 1 and shapes[module.layers[0]][0] % 2 == 0)


@pytest.mark.parametrize(("table", "version"), VERSIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_layer_belongs_to_a_component_and_a_rule(table, version):
    for layer in table.weights[version]:
        assert component_of(layer) in table.components
        assert any(fnmatchcase(layer, pattern) for pattern, _ in table.rules), layer
    assert all(table.components[encoder] == "text encoder" for encoder in table.encoder_tags)


@pytest.mark.parametrize(
    ("version", "layer", "shape", "sees"),
    [
        ("sd1", "unet.mid_block.attentions.0.proj_in", (1280, 1280, 1, 1), "picture"),
        ("sd2", "unet.mid_block.attentions.0.proj_in", (1280, 1280), "picture"),
        ("sdxl", "unet.up_blocks.0.attentions.2.transformer_blocks.9.attn2.to_k", (1280, 2048), "text"),
        ("sdxl", "unet.add_embedding.linear_1", (1280, 2816), "time"),
        ("sdxl", "text_encoder_2.text_model.encoder.layers.31.mlp.fc1", (5120, 1280), "text"),
        ("sdxl", "text_encoder.text_model.encoder.layers.11.mlp.fc1", (3072, 768), "text"),
        ("flux1", "transformer.single_transformer_blocks.37.proj_out", (3072, 15360), "both"),
        ("flux1", "transformer.transformer_blocks.18.attn.to_out.0", (3072, 3072), "picture"),
        ("flux1", "transformer.transformer_blocks.0.attn.to_add_out", (3072, 3072), "both"),
        ("flux1", "transformer.transformer_blocks.0.attn.add_k_proj", (3072, 3072), "both"),
        ("flux1", "transformer.transformer_blocks.0.norm1_context.linear", (18432, 3072), "time"),
        ("flux1", "transformer.time_text_embed.guidance_embedder.linear_1", (3072, 256), "time"),
        ("flux1", "transformer.context_embedder", (3072, 4096), "text"),
        ("flux1", "text_encoder_2.encoder.block.23.layer.1.DenseReluDense.wo", (4096, 10240), "text"),
        ("chroma", "transformer.distilled_guidance_layer.layers.4.linear_2", (5120, 5120), "time"),
        ("chroma", "text_encoder.encoder.block.0.layer.0.SelfAttention.q", (4096, 4096), "text"),
        ("flux2", "transformer.single_transformer_blocks.47.attn.to_qkv_mlp_proj", (55296, 6144), "both"),
        ("flux2-klein-4b", "transformer.context_embedder", (3072, 7680), "text"),
        ("flux2-klein-9b", "transformer.single_transformer_blocks.23.attn.to_out", (4096, 16384), "both"),
        ("flux2-klein-9b", "transformer.single_stream_modulation.linear", (12288, 4096), "time"),
        ("qwen-image", "transformer.transformer_blocks.59.txt_mlp.net.2", (3072, 12288), "both"),
        ("qwen-image", "transformer.transformer_blocks.59.img_mod.1", (18432, 3072), "time"),
        ("z-image", "transformer.layers.29.feed_forward.w2", (3840, 10240), "both"),
        ("z-image", "transformer.noise_refiner.1.attention.to_q", (3840, 3840), "picture"),
        ("z-image", "transformer.noise_refiner.1.adaLN_modulation.0", (15360, 256), "time"),
        ("krea2", "transformer.transformer_blocks.27.attn.to_k", (1536, 6144), "both"),
        ("krea2", "transformer.text_fusion.projector", (1, 12), "both"),
        ("anima", "transformer.transformer_blocks.27.attn2.to_v", (2048, 1024), "text"),
        ("anima", "transformer.transformer_blocks.27.norm3.linear_2", (6144, 256), "time"),
        ("anima", "text_conditioner.blocks.5.mlp.0", (4096, 1024), "text"),
        ("ideogram4", "transformer.layers.33.attention.to_out.0", (4608, 4608), "both"),
        ("ideogram4", "transformer.llm_cond_proj", (4608, 53248), "text"),
    ],
)
def test_layers_of_published_versions(version, layer, shape, sees):
    table = layer_table(version)
    assert table.versions[version][layer] == shape and table.sees(layer) == sees


@pytest.mark.parametrize(
    ("version", "name", "layers"),
    [
        ("sd1", "input_blocks.11.0.in_layers.2", ["unet.down_blocks.3.resnets.1.conv1"]),
        ("sd1", "output_blocks.2.1.conv", ["unet.up_blocks.0.upsamplers.0.conv"]),
        ("sd1", "output_blocks.8.2.conv", ["unet.up_blocks.2.upsamplers.0.conv"]),
        (
            "sdxl",
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k",
            ["unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"],
        ),
        ("sdxl", "middle_block.2.emb_layers.1", ["unet.mid_block.resnets.1.time_emb_proj"]),
        ("sdxl", "output_blocks.8.0.out_layers.0", ["unet.up_blocks.2.resnets.2.norm2"]),
        ("sd1", "out.0", ["unet.conv_norm_out"]),
        ("flux1", "single_blocks.1.norm.key_norm.scale", ["transformer.single_transformer_blocks.1.attn.norm_k"]),
        ("sdxl", "label_emb.0.2", ["unet.add_embedding.linear_2"]),
        (
            "flux1",
            "single_blocks.3.linear1",
            [
                "transformer.single_transformer_blocks.3.attn.to_q",
                "transformer.single_transformer_blocks.3.attn.to_k",
                "transformer.single_transformer_blocks.3.attn.to_v",
                "transformer.single_transformer_blocks.3.proj_mlp",
            ],
        ),
        ("flux2", "single_blocks.3.linear1", ["transformer.single_transformer_blocks.3.attn.to_qkv_mlp_proj"]),
        ("z-image", "layers.3.attention.out", ["transformer.layers.3.attention.to_out.0"]),
        ("krea2", "txtfusion.refiner_blocks.1.attn.wo", ["transformer.text_fusion.refiner_blocks.1.attn.to_out.0"]),
        ("anima", "llm_adapter.blocks.0.self_attn.o_proj", ["text_conditioner.blocks.0.self_attn.o_proj"]),
        ("ideogram4", "layers.3.attention.o", ["transformer.layers.3.attention.to_out.0"]),
    ],
)
def test_original_modules_of_published_versions(version, name, layers):
    assert list(layer_table(version).original_modules(version)[name].layers) == layers


def test_halves_are_exchanged_in_the_last_modulation_of_flux():
    swapped = {
        (version, name)
        for table, version in VERSIONS
        for name, module in table.original_modules(version).items()
        if module.swapped_halves
    }
    flux = ("flux1", "flux2", "flux2-klein-4b", "flux2-klein-9b")
    assert swapped == {(version, "final_layer.adaLN_modulation.1") for version in flux}
