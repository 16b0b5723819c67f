import pytest

from orthoplex.activations.merged_folder import _strengths_named
from orthoplex.concepts import Ingredient, Recipe
from orthoplex.errors import ConfigurationError
from tests.pico import PICO_IDENTITY


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (1e30, "strength of anna is 1e+30, and so tensor 'a' holds inf; allowed is what the base can follow"),
        (1.0, "tensor 'a' holds inf"),
    ],
)
def test_a_strength_that_no_file_can_hold_is_named(strength, message):
    recipe = Recipe(PICO_IDENTITY, (Ingredient("anna", "person", strength, "0" * 64, None),))
    with pytest.raises(ConfigurationError) as error, _strengths_named(recipe):
        raise ConfigurationError("tensor 'a' holds inf")
    assert str(error.value) == message
