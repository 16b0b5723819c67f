"""What layers see under own and foreign prompts: Gram matrices, and the merges that need them."""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.activations.gathering import (
        foreign_gram,
        gather_inputs,
        inputs_for,
        merge_for,
        own_prompts,
        with_inputs,
    )
    from orthoplex.activations.general_prompts import FOREIGN_PROMPTS, default_foreign_prompts
    from orthoplex.activations.grams import collected_grams, gather_grams, observed_inputs, show_text
    from orthoplex.activations.merged_folder import MergedFolder, merge_to_folder

__getattr__ = exports(
    __name__,
    {
        "FOREIGN_PROMPTS": "general_prompts",
        "MergedFolder": "merged_folder",
        "collected_grams": "grams",
        "default_foreign_prompts": "general_prompts",
        "foreign_gram": "gathering",
        "gather_grams": "grams",
        "gather_inputs": "gathering",
        "inputs_for": "gathering",
        "merge_for": "gathering",
        "merge_to_folder": "merged_folder",
        "observed_inputs": "grams",
        "own_prompts": "gathering",
        "show_text": "grams",
        "with_inputs": "gathering",
    },
)

__all__ = [
    "FOREIGN_PROMPTS",
    "MergedFolder",
    "collected_grams",
    "default_foreign_prompts",
    "foreign_gram",
    "gather_grams",
    "gather_inputs",
    "inputs_for",
    "merge_for",
    "merge_to_folder",
    "observed_inputs",
    "own_prompts",
    "show_text",
    "with_inputs",
]
