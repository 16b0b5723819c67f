"""Blocks: contiguous, disjoint slices of a layer's outputs or inputs."""

from orthoplex.errors import CapacityError, ConfigurationError


def block(*, width: int, blocks: int, index: int, layer: str) -> slice:
    """Return block ``index`` of ``blocks``: places ``index · b … (index + 1) · b − 1`` with ``b = ⌊width / blocks⌋``.

    Different blocks share no place. Left-over places at the end belong to no block.

    Args:
        width: The outputs or inputs of the layer.
        blocks: The number of blocks.
        index: The number of the block, from 0.
        layer: The layer's name, for errors.

    Raises:
        ConfigurationError: When the number of blocks is below 1, or above the width.
        CapacityError: When there is no such block.
    """
    if not 1 <= blocks <= width:
        raise ConfigurationError(f"layer {layer}: slots is {blocks}; allowed are 1 to {width}, the places to share")
    if not 0 <= index < blocks:
        raise CapacityError(f"layer {layer}: slot is {index}; of {blocks} slots, allowed are 0 to {blocks - 1}")
    size = width // blocks
    return slice(index * size, (index + 1) * size)
