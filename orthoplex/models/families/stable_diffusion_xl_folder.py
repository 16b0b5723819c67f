"""Folders of Stable Diffusion XL, and what tells its versions apart; without torch."""

from __future__ import annotations

from orthoplex.models.families.form_of_folders import FolderForm, FolderReader


def version_of(prediction_type: object) -> str:
    """Tell bases that predict v, as NoobAI's, from the others; both take each other's LoRAs, of the same layers.

    Args:
        prediction_type: That of the scheduler's configuration.
    """
    return "sdxl-v" if prediction_type == "v_prediction" else "sdxl"


FORM = FolderForm(
    changed=("unet", "text_encoder", "text_encoder_2"),
    unchanged=("vae",),
    readers=(FolderReader(), FolderReader("text_encoder_2", "tokenizer_2")),
    version=lambda configs: version_of(configs["scheduler"]["prediction_type"]),
)
