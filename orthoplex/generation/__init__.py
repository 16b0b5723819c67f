"""Prompt and concepts become pictures."""

from orthoplex.generation.drawing import GenerationProgress, generate, picture_recipe
from orthoplex.generation.each import Picture, generate_each
from orthoplex.generation.png import check_png_name, read_recipe, save_png
from orthoplex.models import Prompt, concept_names, contract_prompt, read_prompt

__all__ = [
    "GenerationProgress",
    "Picture",
    "Prompt",
    "check_png_name",
    "concept_names",
    "contract_prompt",
    "generate",
    "generate_each",
    "picture_recipe",
    "read_prompt",
    "read_recipe",
    "save_png",
]
