"""Names of Stable Diffusion 1 and 2 in other programs' files."""

from orthoplex.models.families.layouts.layout import Names
from orthoplex.models.families.layouts.unet_names import unet_originals

NAMES = Names(
    encoder_tags={"text_encoder": {"kohya": "te", "comfy": "clip_l"}},
    kohya_names="diffusers",
    originals=unet_originals,
)
