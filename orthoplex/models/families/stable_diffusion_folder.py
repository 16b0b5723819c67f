"""Folders of Stable Diffusion 1 and 2, and what tells the versions apart; without torch."""

from __future__ import annotations

from orthoplex.models.families.form_of_folders import FolderForm, FolderReader

_WIDTH_OF_SD2 = 1024
"""Numbers of a token's features in Stable Diffusion 2, whose pipelines are of the same class; 768 in version 1."""


def version_of(text_width: object, prediction_type: object) -> str:
    """Tell Stable Diffusion 2 from version 1, whose bases take none of its LoRAs; readers of headers should know.

    Args:
        text_width: ``cross_attention_dim`` of the U-Net's configuration.
        prediction_type: That of the scheduler's configuration.
    """
    if text_width != _WIDTH_OF_SD2:
        return "sd1"
    return "sd2-v" if prediction_type == "v_prediction" else "sd2"


FORM = FolderForm(
    changed=("unet", "text_encoder"),
    unchanged=("vae",),
    readers=(FolderReader(),),
    version=lambda configs: version_of(configs["unet"]["cross_attention_dim"], configs["scheduler"]["prediction_type"]),
)
