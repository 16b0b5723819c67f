"""The shapes of changed parameters that are no matrices: convolutions, norms and biases."""

from __future__ import annotations

import math
from collections.abc import Mapping

from orthoplex.adapters import LowRank
from orthoplex.concepts.layer_table import layer_table

BIAS = ".bias"
"""The end of the name of a layer that is the bias of another."""


def parameter_shapes(layers: Mapping[str, LowRank], version: str) -> dict[str, tuple[int, ...]]:
    """Return layer to the shape of its parameter: ``(out, in, height, width)`` of convolutions, ``(n,)`` of vectors.

    Args:
        layers: Layer to its change, ``(out, in · height · width)`` or ``(n, 1)``.
        version: Version of the base's family. The table tells windows and norms, whatever the sizes of the base.
    """
    table = layer_table(version)
    known = {} if table is None else table.weights[version]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, change in layers.items():
        (rows, columns), window = change.shape, known.get(layer, ())[2:]
        if columns == 1 and (layer.endswith(BIAS) or len(known.get(layer, (0, 0))) == 1):
            shapes[layer] = (rows,)
        elif window and columns % math.prod(window) == 0:
            shapes[layer] = (rows, columns // math.prod(window), *window)
    return shapes


def plain_vectors(layers: Mapping[str, LowRank], version: str) -> dict[str, LowRank]:
    """Return the changes with norms and biases as a column of numbers times 1, which a file holds as a vector.

    Args:
        layers: Layer to its change.
        version: Version of the base's family.
    """
    vectors = {layer for layer, shape in parameter_shapes(layers, version).items() if len(shape) == 1}
    return {
        layer: LowRank.of_matrix(change.delta())
        if layer in vectors and (change.rank != 1 or change.down.item() != 1)
        else change
        for layer, change in layers.items()
    }
