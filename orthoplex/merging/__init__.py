"""Many concepts -> one change per weight, without any model at hand."""

from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, Part, WeightChanges, create_algorithm
from orthoplex.merging.change_erasure import closed_form_erasure
from orthoplex.merging.choice import AUTO, DefaultAlgorithm, default_algorithm
from orthoplex.merging.concept_merge import Merge, check_options, merge, merge_layers
from orthoplex.merging.conflict_identity import LEVELS, Clash, Level
from orthoplex.merging.conflict_report import ConflictReport, FileLoad, LayerConflict, NormBudget, PairConflict
from orthoplex.merging.conflicts import conflicts
from orthoplex.merging.crosstalk import crosstalk
from orthoplex.merging.foreign_store import ForeignGram, prompts_key, store_foreign_gram, stored_foreign_gram
from orthoplex.merging.input_grams import InputGrams, missing_inputs, stored_gram

__all__ = [
    "ALGORITHMS",
    "AUTO",
    "LEVELS",
    "Algorithm",
    "Clash",
    "ConflictReport",
    "DefaultAlgorithm",
    "FileLoad",
    "ForeignGram",
    "InputGrams",
    "LayerConflict",
    "Level",
    "Merge",
    "NormBudget",
    "PairConflict",
    "Part",
    "WeightChanges",
    "check_options",
    "conflicts",
    "create_algorithm",
    "default_algorithm",
    "crosstalk",
    "merge",
    "merge_layers",
    "missing_inputs",
    "prompts_key",
    "closed_form_erasure",
    "store_foreign_gram",
    "stored_foreign_gram",
    "stored_gram",
]
