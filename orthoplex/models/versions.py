"""The embedded base's name, and what tells the versions of Stable Diffusion apart; without torch."""

EMBEDDED = "vignette"
"""The name of the embedded base, and its family."""
STABLE_DIFFUSION = "StableDiffusionPipeline"
"""The pipeline class of Stable Diffusion 1 and 2, as ``model_index.json`` names it."""
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
