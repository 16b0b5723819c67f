"""Which directions slots divide, as manifests record it."""

import pytest

from orthoplex.adapters import METHODS, AdapterConfig, slot_partition


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({}, "basis=slot, slots=16"),
        ({"method": "dual", "basis": "half", "slots": 4}, "basis=half, slots=4"),
        ({"rank": 3, "slots": 4}, "basis=slot, rank=3"),
        ({"method": "blockwise", "blocks": "columns", "slots": 8}, "blockwise, blocks=columns, slots=8"),
        ({"method": "of a later version", "basis": "random", "option": 1}, "basis=random, slots=16"),
    ],
)
def test_partitions_written_out(recorded, expected):
    assert slot_partition(recorded) == expected


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_one(method):
    assert slot_partition({"method": method}) == METHODS[method].partition(AdapterConfig(method=method))


def test_values_that_are_not_allowed_make_a_partition_of_their_own():
    assert slot_partition({"slots": 0, "method": "orthogonal"}) == "method=orthogonal, slots=0"
