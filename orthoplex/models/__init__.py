"""The diffusion models: load, attach, fold, tokens, save; and the networks that pictures are measured with.

The only room that imports diffusers and transformers.
"""

from orthoplex.models.base import Base, Undo
from orthoplex.models.families import EMBEDDED, FAMILIES, load_base
from orthoplex.models.folding import Foldable
from orthoplex.models.inputs import (
    collected_grams,
    gather_grams,
    observed_inputs,
    see_text_alone,
    show_text,
    text_layers,
)
from orthoplex.models.layers import SELECTIONS, is_text_encoders
from orthoplex.models.layout import channels_first, channels_last
from orthoplex.models.precision import Precision, chosen_precision, has_fast_bf16, precision
from orthoplex.models.saving import check_pipeline_folder, check_pipeline_tokens
from orthoplex.models.vision import ClipNetwork, DinoNetwork, load_clip, load_dino

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "SELECTIONS",
    "Base",
    "ClipNetwork",
    "DinoNetwork",
    "Foldable",
    "Precision",
    "Undo",
    "channels_first",
    "channels_last",
    "check_pipeline_folder",
    "check_pipeline_tokens",
    "chosen_precision",
    "collected_grams",
    "gather_grams",
    "has_fast_bf16",
    "is_text_encoders",
    "load_base",
    "load_clip",
    "load_dino",
    "observed_inputs",
    "precision",
    "see_text_alone",
    "show_text",
    "text_layers",
]
