"""What of a concept a variant shows."""

from dataclasses import replace
from types import SimpleNamespace

import torch

from orthoplex.benchmark.settings import Variant
from orthoplex.benchmark.study import Study
from tests.pico import make_concept, vectors_of


def test_keys_and_values_are_on_the_token_side_of_a_concept(pico):
    """Folded in beside its own tokens, or left out with its weights beside tokens as they began."""
    concept = replace(make_concept(pico, keys_values=True), inputs=torch.ones(1, 24))
    start = {"token_vectors": "keys-and-values", "num_vectors": 1, "concept_id": "anna-0"}
    concept = replace(concept, manifest=replace(concept.manifest, training=start))
    shown = {}
    for parts in ("tokens", "weights"):
        study = SimpleNamespace(variant=Variant(name="x", parts=parts), workspace=SimpleNamespace(base=pico))
        shown[parts] = Study._shown(study, concept)
    assert shown["tokens"].layers == {} and shown["tokens"].tokens == concept.tokens
    weights = shown["weights"]
    assert (weights.layers, weights.inputs) == (concept.layers, None)
    assert weights.tokens["<anna>"].placement.is_one_vector
    assert vectors_of(weights.tokens)["<anna>"].shape == vectors_of(concept.tokens)["<anna>"].shape
