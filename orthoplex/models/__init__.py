"""The diffusion models: load, attach, fold, tokens, save; and the networks that pictures are measured with.

The only room that imports diffusers and transformers.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.models.base import Base, Undo
    from orthoplex.models.families import load_base
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
    from orthoplex.models.mixed_precision import Precision, chosen_precision, has_fast_bf16, precision
    from orthoplex.models.pipeline_folder import check_pipeline_folder, check_pipeline_tokens
    from orthoplex.models.versions import EMBEDDED, FAMILIES
    from orthoplex.models.vision import ClipNetwork, DinoNetwork, load_clip, load_dino

__getattr__ = exports(
    __name__,
    {
        "Base": "base",
        "ClipNetwork": "vision",
        "DinoNetwork": "vision",
        "EMBEDDED": "versions",
        "FAMILIES": "versions",
        "Foldable": "folding",
        "Precision": "mixed_precision",
        "SELECTIONS": "layers",
        "Undo": "base",
        "channels_first": "layout",
        "channels_last": "layout",
        "check_pipeline_folder": "pipeline_folder",
        "check_pipeline_tokens": "pipeline_folder",
        "chosen_precision": "mixed_precision",
        "collected_grams": "inputs",
        "gather_grams": "inputs",
        "has_fast_bf16": "mixed_precision",
        "is_text_encoders": "layers",
        "load_base": "families",
        "load_clip": "vision",
        "load_dino": "vision",
        "observed_inputs": "inputs",
        "precision": "mixed_precision",
        "see_text_alone": "inputs",
        "show_text": "inputs",
        "text_layers": "inputs",
    },
)

__all__ = [
    "Base",
    "ClipNetwork",
    "DinoNetwork",
    "EMBEDDED",
    "FAMILIES",
    "Foldable",
    "Precision",
    "SELECTIONS",
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
