"""Engines that put a change into a base, or beside its layers, set its strengths, and take it out exactly."""

from orthoplex.models.weights.added_change import RowStack
from orthoplex.models.weights.changes import Foldable, check_base, stacks_of
from orthoplex.models.weights.chosen import ChosenWeights, chosen_weights
from orthoplex.models.weights.engine import Strengths, WeightEngine
from orthoplex.models.weights.folded import FoldedWeights
from orthoplex.models.weights.quantised import (
    compute_dtype,
    is_quantised,
    library_of,
    plain_weight,
    quantisation_of,
    weight_shape,
)
from orthoplex.models.weights.refusals import check_foldable, linear_layers, matrix_shape, matrix_shapes, named_modules
from orthoplex.models.weights.token_masks import TokenMasks
from orthoplex.models.weights.unmerged import UnmergedWeights

__all__ = [
    "ChosenWeights",
    "Foldable",
    "FoldedWeights",
    "RowStack",
    "Strengths",
    "TokenMasks",
    "UnmergedWeights",
    "WeightEngine",
    "check_base",
    "check_foldable",
    "chosen_weights",
    "compute_dtype",
    "is_quantised",
    "library_of",
    "linear_layers",
    "matrix_shape",
    "matrix_shapes",
    "named_modules",
    "plain_weight",
    "quantisation_of",
    "stacks_of",
    "weight_shape",
]
