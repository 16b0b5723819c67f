"""The diffusion models: load, attach, fold, tokens, save; and the networks that pictures are measured with.

The only room that imports diffusers and transformers.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.models.base import Base
    from orthoplex.models.base_choice import BaseChoice, BaseName
    from orthoplex.models.base_folder import training_defaults
    from orthoplex.models.blend import Blend
    from orthoplex.models.brought import Brought
    from orthoplex.models.families import FAMILIES
    from orthoplex.models.families.conditioning import Conditioning
    from orthoplex.models.families.family import Family, Layer
    from orthoplex.models.families.item_sizes import ItemSizes
    from orthoplex.models.families.latent import side_multiple
    from orthoplex.models.families.pictures import PictureRequest, Pictures, PictureStep, finished
    from orthoplex.models.layer_names import SELECTIONS
    from orthoplex.models.loading import load_base
    from orthoplex.models.memory_format import channels_last
    from orthoplex.models.mixed_precision import Precision, chosen_precision, has_fast_bf16, precision
    from orthoplex.models.pipeline_folder import check_pipeline_folder, check_pipeline_tokens
    from orthoplex.models.prompts.prompt import Fragment, Prompt, escaped, read_prompt
    from orthoplex.models.prompts.prompt_tokens import concept_names, contract_prompt, with_words
    from orthoplex.models.relatives import WeightSample, check_layers, on_base
    from orthoplex.models.report import BaseReport, base_report
    from orthoplex.models.schedules import DiscreteSchedule, Schedule
    from orthoplex.models.undo import Undo
    from orthoplex.models.versions import EMBEDDED
    from orthoplex.models.vision import ClipNetwork, DinoNetwork, load_clip, load_dino
    from orthoplex.models.weights import Foldable, plain_weight
    from orthoplex.models.words.words import Words, WordSpread

__getattr__ = exports(
    __name__,
    {
        "Base": "base",
        "Blend": "blend",
        "BaseChoice": "base_choice",
        "BaseName": "base_choice",
        "BaseReport": "report",
        "Brought": "brought",
        "ClipNetwork": "vision",
        "Conditioning": "families.conditioning",
        "DinoNetwork": "vision",
        "DiscreteSchedule": "schedules",
        "EMBEDDED": "versions",
        "FAMILIES": "families",
        "Family": "families.family",
        "Foldable": "weights",
        "Fragment": "prompts.prompt",
        "ItemSizes": "families.item_sizes",
        "Layer": "families.family",
        "PictureRequest": "families.pictures",
        "PictureStep": "families.pictures",
        "Pictures": "families.pictures",
        "Precision": "mixed_precision",
        "SELECTIONS": "layer_names",
        "Prompt": "prompts.prompt",
        "Schedule": "schedules",
        "Undo": "undo",
        "WeightSample": "relatives",
        "WordSpread": "words.words",
        "Words": "words.words",
        "base_report": "report",
        "channels_last": "memory_format",
        "check_layers": "relatives",
        "concept_names": "prompts.prompt_tokens",
        "contract_prompt": "prompts.prompt_tokens",
        "escaped": "prompts.prompt",
        "read_prompt": "prompts.prompt",
        "with_words": "prompts.prompt_tokens",
        "side_multiple": "families.latent",
        "check_pipeline_folder": "pipeline_folder",
        "check_pipeline_tokens": "pipeline_folder",
        "chosen_precision": "mixed_precision",
        "finished": "families.pictures",
        "has_fast_bf16": "mixed_precision",
        "load_base": "loading",
        "load_clip": "vision",
        "load_dino": "vision",
        "on_base": "relatives",
        "plain_weight": "weights",
        "precision": "mixed_precision",
        "training_defaults": "base_folder",
    },
)

__all__ = [
    "Base",
    "Blend",
    "BaseChoice",
    "BaseName",
    "BaseReport",
    "Brought",
    "ClipNetwork",
    "Conditioning",
    "DinoNetwork",
    "DiscreteSchedule",
    "EMBEDDED",
    "FAMILIES",
    "Family",
    "Foldable",
    "Fragment",
    "ItemSizes",
    "Layer",
    "PictureRequest",
    "PictureStep",
    "Pictures",
    "Precision",
    "SELECTIONS",
    "Prompt",
    "Schedule",
    "Undo",
    "WeightSample",
    "WordSpread",
    "Words",
    "base_report",
    "channels_last",
    "check_layers",
    "concept_names",
    "contract_prompt",
    "escaped",
    "read_prompt",
    "with_words",
    "side_multiple",
    "check_pipeline_folder",
    "check_pipeline_tokens",
    "chosen_precision",
    "finished",
    "has_fast_bf16",
    "load_base",
    "load_clip",
    "load_dino",
    "on_base",
    "plain_weight",
    "precision",
    "training_defaults",
]
