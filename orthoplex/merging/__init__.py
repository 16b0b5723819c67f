"""Many concepts -> one change per weight, without any model at hand."""

from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, Part, WeightChanges, create_algorithm
from orthoplex.merging.block_weights import PRESETS, BlockWeights
from orthoplex.merging.change_erasure import closed_form_erasure, erasure_in_rows
from orthoplex.merging.choice import AUTO, DefaultAlgorithm, default_algorithm
from orthoplex.merging.concept_merge import Merge, check_options, merge
from orthoplex.merging.conflict_identity import LEVELS, Clash, Level
from orthoplex.merging.conflict_report import ConflictReport, FileLoad, LayerConflict, NormBudget, PairConflict
from orthoplex.merging.conflicts import conflicts
from orthoplex.merging.crosstalk import crosstalk
from orthoplex.merging.file_layers import LayerLoss
from orthoplex.merging.file_merge import FileMerge, merge_again, merge_files
from orthoplex.merging.file_recipe import RECIPE_KEY, FileRecipe, FileSettings, RecipeFile
from orthoplex.merging.foreign_store import ForeignGram, prompts_key, store_foreign_gram, stored_foreign_gram
from orthoplex.merging.input_grams import InputGrams, missing_inputs, stored_gram
from orthoplex.merging.layer_merge import Changes, merge_layers
from orthoplex.merging.strengths import Strengths
from orthoplex.merging.systems import Gram, RowGram
from orthoplex.merging.truncation import Truncated, Truncation, truncate
from orthoplex.merging.verification import LayerError, verify

__all__ = [
    "ALGORITHMS",
    "AUTO",
    "Algorithm",
    "BlockWeights",
    "Changes",
    "Clash",
    "ConflictReport",
    "DefaultAlgorithm",
    "FileLoad",
    "FileMerge",
    "FileRecipe",
    "FileSettings",
    "ForeignGram",
    "Gram",
    "InputGrams",
    "LEVELS",
    "LayerConflict",
    "LayerError",
    "LayerLoss",
    "Level",
    "Merge",
    "NormBudget",
    "PRESETS",
    "PairConflict",
    "Part",
    "RECIPE_KEY",
    "RecipeFile",
    "RowGram",
    "Strengths",
    "Truncated",
    "Truncation",
    "WeightChanges",
    "check_options",
    "closed_form_erasure",
    "conflicts",
    "create_algorithm",
    "default_algorithm",
    "erasure_in_rows",
    "crosstalk",
    "default_algorithm",
    "merge",
    "merge_again",
    "merge_files",
    "merge_layers",
    "missing_inputs",
    "prompts_key",
    "store_foreign_gram",
    "stored_foreign_gram",
    "stored_gram",
    "truncate",
    "verify",
]
