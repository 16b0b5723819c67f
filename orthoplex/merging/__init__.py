"""Many concepts -> one change per weight, without any model at hand."""

from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, Part, WeightChanges, create_algorithm
from orthoplex.merging.change_erasure import closed_form_erasure, erasure_in_rows
from orthoplex.merging.choice import AUTO, DefaultAlgorithm, default_algorithm
from orthoplex.merging.concept_merge import Merge, check_options, merge, merge_layers
from orthoplex.merging.crosstalk import crosstalk
from orthoplex.merging.foreign_store import ForeignGram, prompts_key, store_foreign_gram, stored_foreign_gram
from orthoplex.merging.input_grams import InputGrams, missing_inputs, stored_gram

__all__ = [
    "ALGORITHMS",
    "AUTO",
    "Algorithm",
    "DefaultAlgorithm",
    "ForeignGram",
    "InputGrams",
    "Merge",
    "Part",
    "WeightChanges",
    "check_options",
    "create_algorithm",
    "default_algorithm",
    "erasure_in_rows",
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
