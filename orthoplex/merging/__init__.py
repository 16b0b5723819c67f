"""Many concepts -> one change per weight, without any model at hand."""

from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, Part, WeightChanges, create_algorithm
from orthoplex.merging.choice import AUTO, DefaultAlgorithm, default_algorithm
from orthoplex.merging.crosstalk import crosstalk
from orthoplex.merging.foreign import ForeignGram, prompts_key, store_foreign_gram, stored_foreign_gram
from orthoplex.merging.inputs import InputGrams, missing_inputs, stored_gram
from orthoplex.merging.merge import Merge, check_options, merge, merge_layers
from orthoplex.merging.silence import silence

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
    "crosstalk",
    "merge",
    "merge_layers",
    "missing_inputs",
    "prompts_key",
    "silence",
    "store_foreign_gram",
    "stored_foreign_gram",
    "stored_gram",
]
