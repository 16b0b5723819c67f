"""Blocks are disjoint, contiguous and equal; what is outside is refused."""

import pytest

from orthoplex.errors import CapacityError, ConfigurationError
from orthoplex.subspaces import block


@pytest.mark.parametrize(("width", "blocks", "size"), [(64, 16, 4), (10, 3, 3), (5, 5, 1), (7, 1, 7)])
def test_blocks_are_disjoint_and_equal(width, blocks, size):
    places = [list(range(width))[block(width=width, blocks=blocks, index=i, layer="l")] for i in range(blocks)]
    assert [len(part) for part in places] == [size] * blocks
    assert sum(places, []) == list(range(blocks * size))


@pytest.mark.parametrize("index", (-1, 4))
def test_a_block_that_is_not_there(index):
    with pytest.raises(CapacityError, match=f"layer unet.x: slot is {index}; of 4 slots, allowed are 0 to 3"):
        block(width=64, blocks=4, index=index, layer="unet.x")


@pytest.mark.parametrize("blocks", (0, 65))
def test_more_blocks_than_places(blocks):
    with pytest.raises(ConfigurationError, match=f"layer unet.x: slots is {blocks}; allowed are 1 to 64"):
        block(width=64, blocks=blocks, index=0, layer="unet.x")
