"""Recipes: which concepts, which of them are absent, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orthoplex import __version__
from orthoplex.concepts import Concept, Ingredient, Recipe
from tests.pico import PICO_IDENTITY, make_manifest


def recipe(*strengths: tuple[str, float], scale: float = 1.0) -> Recipe:
    concepts = [Ingredient(name, "person", strength, "f" * 64, slot=None) for name, strength in strengths]
    return Recipe(PICO_IDENTITY, tuple(concepts), scale=scale)


def test_a_concept_is_a_recipe_of_one():
    concept = Concept(replace(make_manifest(), slot=3), {})
    assert concept.recipe == Recipe(
        PICO_IDENTITY, (Ingredient("anna", "person", strength=1.0, content_hash=concept.content_hash, slot=3),)
    )
    assert concept.recipe.algorithm == "sum" and concept.recipe.names == ("anna",)


@pytest.mark.parametrize(
    ("strengths", "scale", "absent"),
    [
        ([("anna", 1.0), ("rex", 0.5)], 1.0, ()),
        ([("rex", 0.0), ("bob", 0.0), ("anna", 1.0)], 1.0, ("bob", "rex")),
        ([("anna", 0.0), ("anna", 1.0), ("rex", 0.0)], 1.0, ("rex",)),  # one name of two concepts
        ([("anna", 1.0), ("rex", 0.5)], 0.0, ("anna", "rex")),
    ],
)
def test_names_are_absent_whose_strength_is_0_alone(strengths, scale, absent):
    assert recipe(*strengths, scale=scale).absent_names == absent


def test_strengths_are_given_as_messages_give_them():
    assert recipe(("anna", 1.0), ("rex", 0.25), scale=0.5).strengths == "anna@1, rex@0.25, scale 0.5"


def test_json_holds_everything_as_plain_values():
    values = recipe(("anna", 0.5)).to_json()
    assert (
        json.loads(json.dumps(values))
        == values
        == {
            "algorithm": "sum",
            "options": {},
            "inputs": None,
            "scale": 1.0,
            "concepts": [{"name": "anna", "kind": "person", "strength": 0.5, "content_hash": "f" * 64, "slot": None}],
            "base": {"family": "sd1", "hash": "0" * 64, "name": "pico"},
            "package_version": __version__,
        }
    )
