"""Inputs of layers under own and foreign prompts: Gram matrices, erasure in closed form, merges with a base."""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.activations.adoption import Adoption, adopt
    from orthoplex.activations.base_merge import blend_for, inputs_for, merge_for
    from orthoplex.activations.captions import foreign_syntax, insert_trigger, with_article
    from orthoplex.activations.concept_erasure import with_erasure
    from orthoplex.activations.conflict_inputs import conflicts_for, weight_norms
    from orthoplex.activations.erasure_options import ErasureOptions
    from orthoplex.activations.features import read_features
    from orthoplex.activations.gathering import gather_inputs
    from orthoplex.activations.general_prompts import FOREIGN_PROMPTS, default_foreign_prompts
    from orthoplex.activations.grams import collected_grams, gather_grams
    from orthoplex.activations.merged_file import merge_to_lora
    from orthoplex.activations.merged_folder import MergedFolder, merge_to_folder
    from orthoplex.activations.observed import observed_inputs
    from orthoplex.activations.stored_inputs import foreign_gram, with_inputs

__getattr__ = exports(
    __name__,
    {
        "Adoption": "adoption",
        "ErasureOptions": "erasure_options",
        "FOREIGN_PROMPTS": "general_prompts",
        "MergedFolder": "merged_folder",
        "adopt": "adoption",
        "collected_grams": "grams",
        "conflicts_for": "conflict_inputs",
        "default_foreign_prompts": "general_prompts",
        "foreign_gram": "stored_inputs",
        "gather_grams": "grams",
        "gather_inputs": "gathering",
        "inputs_for": "base_merge",
        "foreign_syntax": "captions",
        "insert_trigger": "captions",
        "blend_for": "base_merge",
        "merge_for": "base_merge",
        "merge_to_folder": "merged_folder",
        "merge_to_lora": "merged_file",
        "observed_inputs": "observed",
        "read_features": "features",
        "with_article": "captions",
        "with_erasure": "concept_erasure",
        "weight_norms": "conflict_inputs",
        "with_inputs": "stored_inputs",
    },
)

__all__ = [
    "Adoption",
    "ErasureOptions",
    "FOREIGN_PROMPTS",
    "MergedFolder",
    "adopt",
    "collected_grams",
    "conflicts_for",
    "default_foreign_prompts",
    "foreign_gram",
    "gather_grams",
    "gather_inputs",
    "inputs_for",
    "foreign_syntax",
    "insert_trigger",
    "blend_for",
    "merge_for",
    "merge_to_folder",
    "merge_to_lora",
    "observed_inputs",
    "read_features",
    "weight_norms",
    "with_article",
    "with_erasure",
    "with_inputs",
]
