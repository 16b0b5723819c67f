"""The base of every test of the room."""

import pytest

from orthoplex.models import Base


@pytest.fixture
def base(pico: Base) -> Base:
    return pico
