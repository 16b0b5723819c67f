"""Many concepts -> one change per weight, without any model at hand."""

from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, Part, WeightChanges, create_algorithm
from orthoplex.merging.choice import AUTO, suited_algorithm
from orthoplex.merging.crosstalk import crosstalk
from orthoplex.merging.inputs import InputGrams, kept_gram
from orthoplex.merging.merge import Merge, check_options, merge, merge_layers
from orthoplex.merging.silence import silence

__all__ = [
    "ALGORITHMS",
    "AUTO",
    "Algorithm",
    "InputGrams",
    "Merge",
    "Part",
    "WeightChanges",
    "check_options",
    "create_algorithm",
    "crosstalk",
    "kept_gram",
    "merge",
    "merge_layers",
    "silence",
    "suited_algorithm",
]
