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
    assert detect(modules, metadata, family) == Detected(*answer)


@pytest.mark.parametrize(
    ("modules", "family", "error", "words"),
    [
        ({QKV: (9216, 3072)}, None, FileFormatError, "fit several families: chroma, flux"),
        (
            {K: (320, 700)},
            None,
            FileFormatError,
            f"module '{K}' has a change of shape (320, 700), versions of stable_di",
        ),
        ({K: (320, 700)}, None, FileFormatError, "sd1 (320, 768), sd2 (320, 1024)"),
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
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, ["sdxl"]),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, ["sdxl"]),
        ({"ss_base_model_version": "sd_v1"}, ["sd1"]),
        ({"ss_base_model_version": "another"}, []),
    ],
)
def test_the_header_hints_at_versions(metadata, versions):
    assert hinted_versions(metadata) == versions
