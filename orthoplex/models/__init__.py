"""The diffusion models: load, attach, fold, tokens, save; the only room that imports diffusers."""

from orthoplex.models.base import Base, Undo
from orthoplex.models.families import EMBEDDED, FAMILIES, load_base
from orthoplex.models.folding import Foldable
from orthoplex.models.inputs import gather_grams, observed_inputs
from orthoplex.models.layers import SELECTIONS
from orthoplex.models.saving import check_pipeline_folder, check_pipeline_tokens

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "SELECTIONS",
    "Base",
    "Foldable",
    "Undo",
    "check_pipeline_folder",
    "check_pipeline_tokens",
    "gather_grams",
    "load_base",
    "observed_inputs",
]
