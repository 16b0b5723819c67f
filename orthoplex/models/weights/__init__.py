"""How a change is in the weights of a base: engines that put it in, turn its strengths, and take it out exactly."""

from orthoplex.models.weights.changes import Owner, check_base, concept_names, owners_of, stacks_of
from orthoplex.models.weights.engine import Strengths, WeightEngine, with_strengths
from orthoplex.models.weights.folded import FoldedWeights, folded_weights
from orthoplex.models.weights.refusals import check_foldable, linear_layers, named_modules

__all__ = [
    "FoldedWeights",
    "Owner",
    "Strengths",
    "WeightEngine",
    "check_base",
    "check_foldable",
    "concept_names",
    "folded_weights",
    "linear_layers",
    "named_modules",
    "owners_of",
    "stacks_of",
    "with_strengths",
]
