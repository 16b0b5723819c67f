import pytest

from orthoplex.concepts.exchange.detection import Detected, detect, hinted_versions
from orthoplex.errors import ConfigurationError, FileFormatError

K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
QKV = "lora_unet_double_blocks_0_img_attn_qkv"


@pytest.mark.parametrize(
    ("modules", "metadata", "family", "answer"),
    [
        ({K: (320, 768)}, {}, None, ("kohya", "stable_diffusion", "sd1")),
        ({K: (320, 1024)}, {}, None, ("kohya", "stable_diffusion", "sd2")),
        ({K: (320, 1024)}, {"ss_base_model_version": "sd_v2_v"}, None, ("kohya", "stable_diffusion", "sd2-v")),
        ({K: (320, 1024)}, {}, "sd2-v", ("kohya", "stable_diffusion", "sd2-v")),
        ({K: None}, {}, "sd1", ("kohya", "stable_diffusion", "sd1")),
        ({QKV: (9216, 3072)}, {"modelspec.architecture": "Flux-1-dev/lora"}, None, ("kohya", "flux", "flux1")),
        ({QKV: (9216, 3072)}, {}, "chroma", ("kohya", "chroma", "chroma")),
        ({"lora_unet_tower_1": (3, 4)}, {}, None, ("kohya", None, None)),
        ({}, {}, None, ("kohya", None, None)),
        ({}, {}, "sdxl", ("kohya", "stable_diffusion_xl", "sdxl")),
    ],
)
def test_names_and_shapes_tell_the_version(modules, metadata, family, answer):
    assert detect(modules, metadata, family) == Detected(*answer, answer[-1])


UP = "diffusion_model.input_blocks.5.1.transformer_blocks.0.attn2.to_k"
MIDDLE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
DEEP = "lora_unet_mid_block_attentions_0_transformer_blocks_9_attn2_to_k"


@pytest.mark.parametrize(
    ("modules", "family", "answer"),
    [
        ({K: (320, 700)}, None, ("kohya", "stable_diffusion", None, "sd1")),
        ({K: (320, 700), MIDDLE: (512, 700)}, None, ("kohya", "stable_diffusion", None, "sd1")),
        ({MIDDLE: (512, 700), DEEP: (512, 700)}, None, ("kohya", "stable_diffusion_xl", None, "sdxl")),
        ({MIDDLE: (512, 700)}, "stable_diffusion_xl", ("kohya", "stable_diffusion_xl", None, "sdxl")),
        ({QKV: (300, 100), QKV.replace("0", "18"): (300, 100)}, "flux", ("kohya", "flux", None, "flux1")),
    ],
)
def test_names_tell_a_file_of_sizes_that_no_version_has(modules, family, answer):
    assert detect(modules, {}, family) == Detected(*answer)


@pytest.mark.parametrize(
    ("modules", "family", "error", "words"),
    [
        ({QKV: (9216, 3072)}, None, FileFormatError, "fit several families: chroma, flux"),
        (
            {K: (320, 700)},
            "sd1",
            FileFormatError,
            f"module '{K}' has a change of shape (320, 700), versions of stable_",
        ),
        ({MIDDLE: (320, 700)}, None, FileFormatError, "sd1 (1280, 768), sd2 (1280, 1024)"),
        ({MIDDLE: (320, 700)}, None, FileFormatError, "are those of stable_diffusion, stable_diffusion_xl: name one"),
        ({MIDDLE: (1280, 2048)}, "stable_diffusion", FileFormatError, "; they are those of sdxl (stable_diffusion_xl)"),
        ({UP: (320, 700)}, "stable_diffusion", FileFormatError, f"'{UP}' is another layer in each of sd1, sd2, vignet"),
        (
            {K: (64, 64), K.replace("blocks_0_attn2", "blocks_3_attn2"): (64, 64)},
            None,
            FileFormatError,
            "is of block lora_unet_down_blocks_0_attentions_0_transformer_blocks_3, sd1 has lora_unet_down_blocks_0_att"
            "entions_0_transformer_blocks_0 to 0",
        ),
        (
            {K: (64, 64), "lora_unet_tower_1": (64, 64)},
            None,
            FileFormatError,
            "'lora_unet_tower_1' is of a module that sd1 does not have",
        ),
        ({K: (320, 768)}, "anima", FileFormatError, "no module of it is one of anima"),
        ({K: (320, 768)}, "sd9", ConfigurationError, "family 'sd9' is unknown, allowed: "),
        ({}, "sd9", ConfigurationError, "family 'sd9' is unknown, allowed: "),
    ],
)
def test_what_is_not_clear_is_an_error(modules, family, error, words):
    with pytest.raises(error) as raised:
        detect(modules, {}, family)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("metadata", "versions"),
    [
        ({}, []),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, ["sdxl", "sdxl-v"]),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, ["sdxl", "sdxl-v"]),
        ({"ss_base_model_version": "sd_v1"}, ["sd1"]),
        ({"ss_base_model_version": "another"}, []),
        ({"modelspec.architecture": "flux-2-klein-base-9b/lora"}, ["flux2"]),
        ({"modelspec.architecture": "FLUX.2_Klein-9b/lora"}, ["flux2-klein-9b"]),
        ({"modelspec.architecture": "Flux.1-dev"}, ["flux1"]),
        ({"ss_base_model_version": "z_image-turbo"}, ["z-image"]),
        ({"ss_base_model_version": "animagine-xl"}, []),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, ["sd2-v"]),
    ],
)
def test_the_header_hints_at_versions(metadata, versions):
    assert hinted_versions(metadata) == versions


def test_another_model_with_the_names_of_known_ones_is_read_if_that_is_asked_for():
    modules = dict.fromkeys(
        (f"transformer.transformer_blocks.{i}.attn.{part}" for i in range(3) for part in ("to_q", "to_k")), (1536, 1536)
    )
    with pytest.raises(FileFormatError, match="name one with --family, or other for another model"):
        detect(modules, {})
    assert detect(modules, {}, "other") == Detected("diffusers", None, None)
