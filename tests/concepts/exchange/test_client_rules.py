"""What other programs read of a LoRA file, asked of its header: the answers that the programs themselves gave."""

from collections.abc import Mapping

import pytest

from orthoplex.concepts.exchange.client_rules import CLIENTS, readers, readers_in_words
from orthoplex.concepts.exchange.lora_keys import LoraKeys
from orthoplex.files import Header, TensorEntry

Shapes = Mapping[str, tuple[int, ...]]

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
FLAT = BLOCK.replace(".", "_")
CODE = "input_blocks.1.1.transformer_blocks.0"
CLIP = "text_model.encoder.layers.0.self_attn.q_proj"
CLIP_FLAT = CLIP.replace(".", "_")


def header(
    shapes: Shapes, metadata: Mapping[str, str] | None = None, dtypes: Mapping[str, str] | None = None
) -> Header:
    """A header with these tensors, fp16 where no other type is given."""
    types = dtypes or {}
    entries = {key: TensorEntry(types.get(key, "F16"), shape, 0, 0) for key, shape in shapes.items()}
    return Header(metadata or {}, entries, 0, 0)


def low_rank(
    *modules: str, rank: int = 4, ends: tuple[str, str] = ("lora_down", "lora_up"), alpha: bool = True
) -> dict[str, tuple[int, ...]]:
    """Keys of low-rank changes, with alphas."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module in modules:
        shapes |= {f"{module}.{ends[0]}.weight": (rank, 8), f"{module}.{ends[1]}.weight": (8, rank)}
        if alpha:
            shapes[f"{module}.alpha"] = ()
    return shapes


def peft(*modules: str) -> dict[str, tuple[int, ...]]:
    """Keys of low-rank changes as PEFT writes them."""
    return low_rank(*modules, ends=("lora_A", "lora_B"), alpha=False)


def complete(shapes: Shapes, family: str = "stable_diffusion") -> set[str]:
    """The programs that read a file whole and exactly."""
    return {name for name, lines in readers(header(shapes), family).items() if not lines}


ALL = set(CLIENTS)
SD1 = f"lora_unet_{FLAT}_attn2_to_k", f"lora_te_{CLIP_FLAT}"
SDXL = f"lora_unet_{CODE.replace('.', '_')}_attn2_to_k", f"lora_te1_{CLIP_FLAT}", f"lora_te2_{CLIP_FLAT}"


@pytest.mark.parametrize(
    ("shapes", "family", "clients"),
    [
        (low_rank(*SD1), "stable_diffusion", ALL),
        (low_rank(*SD1, alpha=False), "stable_diffusion", ALL),
        (low_rank(*SDXL), "stable_diffusion_xl", ALL - {"OpenVINO GenAI", "stable-diffusion.cpp"}),
        (
            low_rank(f"lora_unet_{FLAT}_attn2_to_k"),
            "stable_diffusion_xl",
            ALL - {"OpenVINO GenAI", "sd-scripts", "stable-diffusion.cpp"},
        ),
        (low_rank(SDXL[0]), "stable_diffusion", {"ComfyUI", "Forge", "stable-diffusion.cpp"}),
        (peft(f"unet.{BLOCK}.attn2.to_k", f"text_encoder.{CLIP}"), "stable_diffusion", {"diffusers"}),
        (peft(f"text_encoder.{CLIP}"), "stable_diffusion", {"ComfyUI", "Forge", "diffusers"}),
        (peft(f"text_encoder_2.{CLIP}"), "stable_diffusion_xl", {"ComfyUI", "Forge", "diffusers"}),
        (
            peft(f"unet.{BLOCK}.ff.net.2"),
            "stable_diffusion",
            {"ComfyUI", "Forge", "diffusers", "stable-diffusion.cpp"},
        ),
        (
            peft(f"unet.{BLOCK}.attn2.processor.to_k"),
            "stable_diffusion",
            {"ComfyUI", "Forge", "diffusers", "stable-diffusion.cpp"},
        ),
        (
            peft(f"diffusion_model.{CODE}.attn2.to_k"),
            "stable_diffusion",
            {"ComfyUI", "Forge", "stable-diffusion.cpp"},
        ),
        (peft(f"diffusion_model.{BLOCK}.attn2.to_k"), "stable_diffusion", set()),
        (peft(f"text_encoders.clip_l.transformer.{CLIP}"), "stable_diffusion", {"ComfyUI"}),
        (
            low_rank(SD1[0]) | {f"lora_unet_{FLAT}_attn1_to_k.diff": (8, 8)},
            "stable_diffusion",
            {"ComfyUI", "Forge", "InvokeAI", "stable-diffusion.cpp"},
        ),
        ({}, "stable_diffusion", set()),
        ({"emb_params": (2, 8)}, "stable_diffusion", set()),
    ],
)
def test_these_programs_read_these_names(shapes: Shapes, family: str, clients: set[str]) -> None:
    assert complete(shapes, family) == clients


def test_nothing_is_said_of_a_family_that_nothing_is_known_about() -> None:
    assert readers(header(low_rank(*SD1)), "no_such_family") == {}


@pytest.mark.parametrize(
    ("family", "shapes", "answers"),
    [
        ("flux", low_rank("lora_unet_double_blocks_0_img_attn_qkv"), {"ComfyUI": True, "diffusers": True}),
        ("flux", low_rank("lora_unet_img_in"), {"ComfyUI": True, "diffusers": False}),
        ("flux", peft("diffusion_model.double_blocks.0.img_attn.qkv"), {"ComfyUI": True, "diffusers": False}),
        ("flux", low_rank("diffusion_model.double_blocks.0.img_attn.qkv"), {"ComfyUI": True, "diffusers": True}),
        ("flux", peft("transformer.transformer_blocks.0.attn.to_q"), {"ComfyUI": True, "diffusers": True}),
        ("flux", peft("transformer.double_blocks.0.img_attn.qkv"), {"ComfyUI": False, "diffusers": False}),
        ("flux", low_rank(f"lora_te1_{CLIP_FLAT}"), {"ComfyUI": True, "diffusers": True}),
        ("chroma", peft("transformer.distilled_guidance_layer.in_proj"), {"ComfyUI": False, "diffusers": True}),
        ("chroma", low_rank("lora_unet_distilled_guidance_layer_in_proj"), {"ComfyUI": True, "diffusers": False}),
        ("flux2", low_rank("lora_unet_single_blocks_3_linear1"), {"diffusers": True}),
        ("flux2", low_rank("lora_unet_single_stream_modulation_lin"), {"diffusers": False}),
        ("flux2", peft("diffusion_model.double_blocks.0.txt_attn.qkv"), {"diffusers": True}),
        ("flux2", peft("diffusion_model.final_layer.adaLN_modulation.1"), {"diffusers": False}),
        ("flux2", peft("double_blocks.0.txt_attn.qkv"), {"diffusers": False}),
        ("qwen_image", low_rank("lora_unet_transformer_blocks_0_attn_to_q"), {"ComfyUI": True, "diffusers": True}),
        ("qwen_image", peft("transformer_blocks.0.attn.to_q"), {"ComfyUI": True, "diffusers": False}),
        ("z_image", low_rank("lora_unet_layers_0_attention_qkv"), {"diffusers": True}),
        ("z_image", peft("diffusion_model.layers.0.attention.qkv"), {"diffusers": False}),
        ("z_image", peft("diffusion_model.layers.0.attention.to_q"), {"diffusers": True}),
        ("z_image", low_rank("lora_unet_x_embedder"), {"diffusers": False}),
        ("krea2", peft("diffusion_model.blocks.0.attn.wq"), {"diffusers": True}),
        ("krea2", low_rank("lora_unet_blocks_0_attn_wq"), {"diffusers": False}),
        ("anima", peft("diffusion_model.blocks.0.self_attn.q_proj"), {"diffusers": True}),
        ("anima", low_rank("lora_unet_blocks_0_self_attn_q_proj"), {"diffusers": False}),
        ("ideogram4", peft("diffusion_model.layers.0.attention.qkv"), {"diffusers": True}),
        ("ideogram4", peft("diffusion_model.adaln_proj"), {"diffusers": False}),
        ("ideogram4", peft("transformer.adaln_proj"), {"diffusers": True}),
        ("ideogram4", low_rank("lora_unet_layers_0_attention_qkv"), {"diffusers": False}),
    ],
)
def test_other_families(family: str, shapes: Shapes, answers: Mapping[str, bool]) -> None:
    assert {name: not lines for name, lines in readers(header(shapes), family).items()} == answers


@pytest.mark.parametrize(
    ("family", "shapes", "line"),
    [
        (
            "krea2",
            peft("diffusion_model.blocks.0.attn.wq") | {"diffusion_model.blocks.0.attn.wq.alpha": ()},
            "refuses the file for alpha beside such names: layer diffusion_model.blocks.0.attn.wq",
        ),
        (
            "ideogram4",
            peft("diffusion_model.layers.0.attention.o", "diffusion_model.input_proj"),
            "refuses the file for 1 of 2 layers, such as diffusion_model.input_proj",
        ),
        (
            "flux",
            low_rank("lora_unet_single_blocks_0_linear2", "lora_unet_img_in"),
            "does not read 1 of 2 layers, such as lora_unet_img_in",
        ),
        (
            "z_image",
            low_rank("lora_unet_layers_0_attention_qkv") | {"lora_unet_layers_0_attention_qkv.dora_scale": (8,)},
            "does not read the magnitudes of DoRA, as in layer lora_unet_layers_0_attention_qkv",
        ),
    ],
)
def test_diffusers_says_what_it_does_not_read_of_other_families(family: str, shapes: Shapes, line: str) -> None:
    assert CLIENTS["diffusers"].takes(header(shapes), family) == [line]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"A": [], "B": []}, "A, B"),
        ({"A": [], "B": ["reads none", "is old"]}, "A; not by B (reads none; is old)"),
        ({"B": ["is old"]}, "none that is known; not by B (is old)"),
        ({}, ""),
    ],
)
def test_readers_in_words(answers: Mapping[str, list[str]], words: str) -> None:
    assert readers_in_words(answers) == words


@pytest.mark.parametrize(
    ("client", "shapes", "line"),
    [
        ("ComfyUI", peft(f"unet.{BLOCK}.attn1.to_q"), f"reads none of its layers, such as unet.{BLOCK}.attn1.to_q"),
        ("ComfyUI", {}, "reads none of its layers"),
        (
            "ComfyUI",
            peft(f"unet.{BLOCK}.attn1.to_q", f"unet.{BLOCK}.ff.net.2"),
            f"does not read 1 of 2 layers, such as unet.{BLOCK}.attn1.to_q",
        ),
        ("ComfyUI", low_rank(*SD1) | {"emb_params": (2, 8)}, "leaves out tensor emb_params, which is no LoRA"),
        (
            "Forge",
            low_rank(*SD1) | {f"bundle_emb.a.{i}": (2, 8) for i in range(13)},
            "leaves out the whole file for 13 tensors that are no LoRA, such as bundle_emb.a.0",
        ),
        (
            "diffusers",
            low_rank(*SD1) | {"emb_params": (2, 8)},
            "refuses the file for tensor emb_params, which is no LoRA",
        ),
        (
            "sd-scripts",
            low_rank(*SD1) | {"bundle_emb.a": (2, 8)},
            "refuses the file for tensor bundle_emb.a, which is no LoRA",
        ),
        (
            "sd-scripts",
            low_rank(*SD1) | {f"{SD1[0]}.alpha": (1,)},
            f"refuses an alpha of shape [1], allowed is []: layer {SD1[0]}",
        ),
        ("sd-scripts", low_rank(*SD1) | {f"{SD1[0]}.hada_w1_a": (4, 8)}, f"does not read LoHa, as in layer {SD1[0]}"),
        (
            "OpenVINO GenAI",
            {f"{SD1[0]}.lora_down.weight": (4, 8, 3, 3), f"{SD1[0]}.lora_up.weight": (8, 4, 1, 1)},
            f"refuses convolutions wider than one pixel: layer {SD1[0]}",
        ),
        (
            "diffusers",
            low_rank(SD1[0]) | low_rank(f"lora_unet_{FLAT}_attn1_to_q", rank=8),
            "reads alphas that differ wrongly: 4, 8 in lora_unet_…",
        ),
    ],
)
def test_a_program_says_what_it_does_not_read(client: str, shapes: Shapes, line: str) -> None:
    assert CLIENTS[client].takes(header(shapes), "stable_diffusion") == [line]


def test_other_bundled_embeddings_are_dropped_by_invokeai_and_all_other_tensors_refused() -> None:
    client = CLIENTS["InvokeAI"]
    assert client.takes(header(low_rank(*SD1) | {"bundle_emb.a.x": (2, 8)}), "stable_diffusion") == []
    assert client.takes(header(low_rank(*SD1) | {"clip_l": (2, 8)}), "stable_diffusion") == [
        "refuses the file for tensor clip_l, which is no LoRA"
    ]


@pytest.mark.parametrize("client", ["InvokeAI", "OpenVINO GenAI"])
def test_two_types_in_a_layer_are_refused(client: str) -> None:
    mixed = header(low_rank(*SD1), dtypes={f"{SD1[1]}.lora_down.weight": "F32"})
    assert CLIENTS[client].takes(mixed, "stable_diffusion") == [
        f"refuses factors of two types: F32 and F16 in layer {SD1[1]}"
    ]


def test_adapter_metadata_beside_alphas_is_refused_by_diffusers() -> None:
    metadata = {"lora_adapter_metadata": "{}"}
    client = CLIENTS["diffusers"]
    assert client.takes(header(low_rank(*SD1), metadata), "stable_diffusion") == [
        "refuses header key lora_adapter_metadata beside alpha"
    ]
    assert client.takes(header(low_rank(*SD1, alpha=False), metadata), "stable_diffusion") == []


def test_alphas_are_compared_where_they_are_known() -> None:
    ranks = low_rank(SD1[0]) | low_rank(f"lora_unet_{FLAT}_attn1_to_q", rank=8)
    equal: dict[str, float] = {SD1[0]: 8.0, f"lora_unet_{FLAT}_attn1_to_q": 8.0}
    assert CLIENTS["diffusers"].takes(header(ranks), "stable_diffusion", equal) == []
    assert CLIENTS["OpenVINO GenAI"].takes(header(ranks), "stable_diffusion", equal) == [
        f"ignores alpha: 8 with rank 4 in layer {SD1[0]}"
    ]


@pytest.mark.parametrize(
    ("key", "module", "part"),
    [
        ("lora_unet_a.lora_down.weight", "lora_unet_a", "down"),
        ("unet.a.0.lora_B.weight", "unet.a.0", "up"),
        ("a.lora_A.default.weight", "a", "down"),
        ("unet.a.processor.to_q_lora.up.weight", "unet.a.processor.to_q", "up"),
        ("unet.a.lora.down.weight", "unet.a", "down"),
        ("lora_te_a.lora_mid.weight", "lora_te_a", "mid"),
        ("lora_te_a.dora_scale", "lora_te_a", "magnitude"),
        ("lora_te_a.lokr_w2_b", "lora_te_a", "LoKr"),
        ("lora_te_a.diff_b", "lora_te_a", "difference"),
    ],
)
def test_a_key_is_a_module_and_a_part(key: str, module: str, part: str) -> None:
    keys = LoraKeys.of(header({key: (4, 8)}))
    assert {name: set(parts) for name, parts in keys.modules.items()} == {module: {part}}
    assert keys.others == ()


@pytest.mark.parametrize(
    "key", ["emb_params", "bundle_emb.a.string_to_param.*", "alpha", "a.weight", "lora_unet_a.alpha.x"]
)
def test_a_key_that_is_no_part_of_a_change_is_named(key: str) -> None:
    assert LoraKeys.of(header({key: (4, 8)})).others == (key,)
