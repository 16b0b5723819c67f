"""Laws of owners and strengths that every merging algorithm must keep."""

from __future__ import annotations

import itertools

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept
from orthoplex.concepts.exchange import LoraFile
from orthoplex.merging import ALGORITHMS, InputGrams, Merge, Strengths, merge, merge_files, verify
from tests.pico import make_manifest

OWNED = ("sum", "mean", "least-squares", "ssr", "custom-diffusion")
"""Algorithms that are linear in every strength and give every concept columns of its own."""
LAYERS = {"unet.a": (24, 32), "unet.b": (16, 20)}
OPTIONS = {"least-squares": {"foreign": 3.0}, "custom-diffusion": {"threshold": 0.5}}


def drawn(number: int) -> Concept:
    generator = torch.Generator().manual_seed(number)
    changes = {
        layer: LowRank(torch.randn(out, 3, generator=generator), torch.randn(3, width, generator=generator))
        for layer, (out, width) in LAYERS.items()
        if not (number == 2 and layer == "unet.b")  # one leaves a layer alone
    }
    return Concept(make_manifest(f"concept-{number}"), changes)


CONCEPTS = [drawn(number) for number in range(4)]
STRENGTHS = (1.0, 0.6, -0.5, 1.3)


def inputs() -> InputGrams:
    grams: dict[str, dict[str, torch.Tensor]] = {}
    for number, concept in enumerate(CONCEPTS):
        generator = torch.Generator().manual_seed(100 + number)
        seen = {layer: torch.randn(7, width, generator=generator) for layer, (_, width) in LAYERS.items()}
        grams[concept.content_hash] = {layer: x.T @ x / len(x) for layer, x in seen.items()}
    return InputGrams(grams, {layer: torch.eye(width) for layer, (_, width) in LAYERS.items()})


def merged(algorithm: str, strengths: tuple[float, ...] = STRENGTHS, scale: float = 1.0) -> Merge:
    pairs = list(zip(CONCEPTS, strengths, strict=True))
    return merge(pairs, algorithm=algorithm, options=OPTIONS.get(algorithm), scale=scale, inputs=inputs())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_columns_are_owned_where_an_algorithm_is_linear_in_every_strength(algorithm):
    found = merged(algorithm)
    assert all(stack.is_owned == (algorithm in OWNED) for stack in found.layers.values())
    names = {concept.content_hash: concept.name for concept in CONCEPTS}
    assert found.owners == (names if algorithm in OWNED else {})


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("algorithm", OWNED)
def test_a_turned_strength_is_a_merge_made_anew(algorithm, scale):
    before = merged(algorithm, scale=scale)
    for place, strength in itertools.product(range(4), (1.0, 0.25, -2.0)):
        anew = merged(algorithm, (*STRENGTHS[:place], strength, *STRENGTHS[place + 1 :]), scale)
        for layer, stack in before.layers.items():
            turned = stack.with_strength(CONCEPTS[place].content_hash, strength)
            assert torch.equal(turned.delta(), anew.layers[layer].delta())


@pytest.mark.parametrize("algorithm", OWNED)
def test_parts_of_concepts_add_up_to_the_merge(algorithm):
    for stack in merged(algorithm).layers.values():
        parts = [stack.only({concept.content_hash}).delta().double() for concept in CONCEPTS]
        total = torch.stack(parts).sum(0)
        torch.testing.assert_close(stack.delta().double(), total, rtol=1e-5, atol=1e-5 * float(total.norm()))
        for part, concept in zip(parts, CONCEPTS, strict=True):
            rest = stack.without(concept.content_hash).delta().double()
            torch.testing.assert_close(rest, total - part, rtol=1e-5, atol=1e-5 * float(total.norm()))


def test_without_a_concept_is_the_sum_of_the_rest():
    found = merged("sum")
    for place, concept in enumerate(CONCEPTS):
        pairs = [pair for number, pair in enumerate(zip(CONCEPTS, STRENGTHS, strict=True)) if number != place]
        for layer, change in merge(pairs, algorithm="sum").layers.items():
            assert torch.equal(found.layers[layer].without(concept.content_hash).delta(), change.delta())


def test_a_concept_at_strength_zero_owns_nothing():
    found = merged("sum", (1.0, 0.0, 1.0, 1.0))
    assert set(found.owners.values()) == {"concept-0", "concept-2", "concept-3"}


FILES = [
    LoraFile(
        concept.name,
        "diffusers",
        None,
        None,
        {name: LowRank(change.up.half(), change.down.half()) for name, change in concept.layers.items()},
    )
    for concept in CONCEPTS
]


def file_sum(pairs) -> dict[str, torch.Tensor]:
    totals: dict[str, torch.Tensor] = {}
    for file, strength in pairs:
        for layer, change in file.layers.items():
            exact = strength * (change.up.double() @ change.down.double())
            totals[layer] = totals.get(layer, torch.zeros(())) + exact
    return totals


def test_one_file_at_strength_one_is_itself():
    merged = merge_files([(FILES[0], Strengths())]).lora
    for layer, change in FILES[0].layers.items():
        assert torch.equal(merged.layers[layer].up, change.up) and torch.equal(merged.layers[layer].down, change.down)


@pytest.mark.parametrize("algorithm", [name for name, kind in ALGORITHMS.items() if not kind.needs_inputs])
def test_the_order_of_files_changes_no_bit(algorithm):
    pairs = [(file, Strengths(strength)) for file, strength in zip(FILES, STRENGTHS, strict=True)]
    first, second = (merge_files(given, algorithm=algorithm).lora for given in (pairs, pairs[::-1]))
    assert first.content_hash == second.content_hash and first.metadata == second.metadata


@pytest.mark.parametrize("algorithm", [name for name, kind in ALGORITHMS.items() if not kind.needs_inputs])
def test_a_file_at_strength_zero_is_absent(algorithm):
    pairs = [(file, Strengths()) for file in FILES[:2]]
    without = merge_files(pairs, algorithm=algorithm).lora
    absent = merge_files([*pairs, (FILES[3], Strengths(0.0))], algorithm=algorithm).lora
    assert absent.content_hash == without.content_hash


def test_every_subset_is_the_sum_within_one_rounding():
    for count in (1, 2, 3, 4):
        for chosen in itertools.combinations(zip(FILES, STRENGTHS, strict=True), count):
            pairs = [(file, Strengths(strength)) for file, strength in chosen]
            merged = merge_files(pairs).lora
            for layer, exact in file_sum(chosen).items():
                change = merged.layers[layer]
                error = (change.up.double() @ change.down.double() - exact).norm() / exact.norm()
                assert error < 6e-8
            assert all(item.error <= item.floor * 1.01 + 1e-15 for item in verify(merged, pairs))
