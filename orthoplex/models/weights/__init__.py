"""Engines that put a change into the weights of a base, set its strengths, and take it out exactly."""

from orthoplex.models.weights.changes import Foldable, check_base, stacks_of
from orthoplex.models.weights.engine import Strengths, WeightEngine
from orthoplex.models.weights.folded import FoldedWeights, folded_weights
from orthoplex.models.weights.refusals import check_foldable, linear_layers, matrix_shape, matrix_shapes, named_modules

__all__ = [
    "Foldable",
    "FoldedWeights",
    "Strengths",
    "WeightEngine",
    "check_base",
    "check_foldable",
    "folded_weights",
    "linear_layers",
    "matrix_shape",
    "matrix_shapes",
    "named_modules",
    "stacks_of",
]
