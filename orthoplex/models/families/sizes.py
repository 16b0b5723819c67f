"""How many numbers the published bases of each family hold; without torch.

Networks of diffusers and transformers are counted on the device ``meta``, by the configurations of the layouts where
these have them (a slow test counts again). Text encoders that need a picture reader besides are those of their model
cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

COUNTED, MODEL_CARDS = "counted", "text encoder by its model card"
_CLIP_L, _CLIP_G, _CLIP_H, _T5_XXL = 123_060_480, 694_659_840, 340_387_840, 4_762_310_656
_QWEN3_600M, _QWEN3_4B, _QWEN3_8B = 596_049_920, 4_022_468_096, 8_190_735_360
_QWEN2_5_VL_7B, _QWEN3_VL_4B = 8_290_000_000, 4_440_000_000
_VAE_4, _VAE_16, _VAE_QWEN, _VAE_FLUX2 = 83_653_863, 83_819_683, 126_892_531, 84_046_115


@final
@dataclass(frozen=True)
class FamilySize:
    """The numbers of one published base.

    Attributes:
        version: As concepts name it.
        title: As its users name it.
        pipeline: The class of its pipelines.
        denoiser: Numbers of the denoiser, and of what it needs besides.
        text_encoders: Numbers of all text encoders.
        autoencoder: Numbers of the autoencoder.
        source: Where the numbers are from.
    """

    version: str
    title: str
    pipeline: str
    denoiser: int
    text_encoders: int
    autoencoder: int
    source: str = COUNTED

    @property
    def numbers(self) -> int:
        """All of them."""
        return self.denoiser + self.text_encoders + self.autoencoder


FAMILY_SIZES = (
    FamilySize("sd1", "Stable Diffusion 1", "StableDiffusionPipeline", 859_520_964, _CLIP_L, _VAE_4),
    FamilySize("sd2", "Stable Diffusion 2", "StableDiffusionPipeline", 865_910_724, _CLIP_H, _VAE_4),
    FamilySize("sdxl", "SDXL", "StableDiffusionXLPipeline", 2_567_463_684, _CLIP_L + _CLIP_G, _VAE_4),
    FamilySize("anima", "Anima", "AnimaModularPipeline", 1_956_405_248 + 134_663_680, _QWEN3_600M, _VAE_QWEN),
    FamilySize("flux2-klein-4b", "FLUX.2 Klein 4B", "Flux2KleinPipeline", 3_875_544_576, _QWEN3_4B, _VAE_FLUX2),
    FamilySize("z-image", "Z-Image", "ZImagePipeline", 6_154_908_736, _QWEN3_4B, _VAE_16),
    FamilySize("chroma", "Chroma", "ChromaPipeline", 8_899_983_424, _T5_XXL, _VAE_16),
    FamilySize("flux1", "FLUX.1", "FluxPipeline", 11_901_408_320, _CLIP_L + _T5_XXL, _VAE_16),
    FamilySize("flux2-klein-9b", "FLUX.2 Klein 9B", "Flux2KleinPipeline", 9_078_581_248, _QWEN3_8B, _VAE_FLUX2),
    FamilySize("krea2", "Krea 2", "Krea2Pipeline", 12_820_073_036, _QWEN3_VL_4B, _VAE_QWEN, MODEL_CARDS),
    FamilySize("qwen-image", "Qwen-Image", "QwenImagePipeline", 20_430_401_088, _QWEN2_5_VL_7B, _VAE_QWEN, MODEL_CARDS),
)
"""The published bases, the smaller ones first."""
