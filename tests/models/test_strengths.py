"""Turning the strengths of what is folded in: always from the original weights, as if it were merged anew."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Ingredient, Stack
from orthoplex.errors import ConfigurationError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from orthoplex.models.layer_names import all_linear_layers
from orthoplex.models.weights import FoldedWeights, named_modules
from orthoplex.models.weights.products import Products
from tests.pico import make_concept

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def any_pico(request, pico_folder) -> Base:
    return load_base(pico_folder, dtype=request.param)


def weights(base: Base) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach().clone() for name, layer in all_linear_layers(base.family.components()).items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def pair(base: Base):
    return [
        (make_concept(base, "anna", selection="linear", text_encoder=True, seed=1), 0.8),
        (make_concept(base, "rex", ranks=(1, 3), seed=2), 1.0),
    ]


def test_every_turn_is_a_fold_of_a_merge_made_anew_bit_for_bit(any_pico):
    before = weights(any_pico)
    (anna, _), (rex, _) = pair(any_pico)
    with any_pico.fold(merge(pair(any_pico), algorithm="sum")) as undo:
        for first, second in ((0.3, 1.0), (0.3, -2.0), (0.0, 1.0), (0.0, 0.0), (1.0, 1.0)):
            undo.strengths["anna"], undo.strengths[rex.content_hash] = first, second
            turned = weights(any_pico)
            assert dict(undo.strengths) == {"anna": first, "rex": second}
            undo_recipe = undo.recipe
            assert any_pico.recipe == undo_recipe
            assert [concept.strength for concept in undo_recipe.concepts] == [first, second]
            other = untouched_copy(any_pico)
            with other.folded(merge([(anna, first), (rex, second)], algorithm="sum")):
                assert same(weights(other), turned)
        assert not same(weights(any_pico), before)
    assert same(weights(any_pico), before)


def untouched_copy(base: Base) -> Base:
    """An untouched copy: originals are put back into a deep copy of the pipeline's networks."""
    other = copy.deepcopy(base)
    other._undo.restore()
    return other


def test_many_turns_leave_no_trace(pico):
    before = weights(pico)
    undo = pico.fold(merge(pair(pico), algorithm="sum"))
    folded_in = weights(pico)
    for turn in range(40):
        undo.strengths["anna"] = 0.1 * turn
    undo.strengths["anna"] = 0.8
    assert same(weights(pico), folded_in)
    undo.restore()
    assert same(weights(pico), before) and pico.recipe is None


def test_only_the_layers_of_a_concept_are_computed_again(pico, monkeypatch):
    undo = pico.fold(merge(pair(pico), algorithm="sum"))
    count, original = [], Products.write
    monkeypatch.setattr(
        Products, "write", lambda self, targets, facts: count.append(len(targets)) or original(self, targets, facts)
    )
    undo.strengths["rex"] = 0.5
    assert sum(count) == len(pair(pico)[1][0].layers)
    undo.restore()


def test_a_single_concept_can_be_turned(pico):
    anna = make_concept(pico)
    with pico.fold(anna) as undo:
        undo.strengths["anna"] = 0.25
        quarter = weights(pico)
        assert undo.recipe.concepts[0].strength == 0.25 and anna.recipe.concepts[0].strength == 1.0
    with pico.folded(merge([(anna, 0.25)])):
        assert same(weights(pico), quarter)


def test_the_scale_stays(pico):
    anna = make_concept(pico)
    with pico.fold(merge([(anna, 1.0)], scale=0.5)) as undo:
        undo.strengths["anna"] = 0.5
        turned = weights(pico)
    with pico.folded(merge([(anna, 0.5)], scale=0.5)):
        assert same(weights(pico), turned)


def test_prompts_are_read_without_the_names_of_concepts_at_strength_zero(pico):
    with pico.fold(merge(pair(pico), algorithm="sum")) as undo:
        undo.strengths["anna"] = undo.strengths["rex"] = 0.0
        silent = generate(pico, "a photo of <anna> person", num_inference_steps=1)[0]
        undo.strengths["anna"] = 1.0
        loud = generate(pico, "a photo of <anna> person", num_inference_steps=1)[0]
    plain = generate(pico, "a photo of person", num_inference_steps=1)[0]
    assert silent.tobytes() == plain.tobytes() != loud.tobytes()


def test_saved_recipes_tell_the_strength_of_now(pico, tmp_path):
    with pico.fold(make_concept(pico)) as undo:
        undo.strengths["anna"] = 0.5
        folder = pico.save(tmp_path / "half")
    assert '"strength": 0.5' in (folder / "recipe.json").read_text()


def test_tokens_alone_can_be_silenced(pico):
    with pico.fold(merge([(make_concept(pico, "tom", selection="none"), 1.0)])) as undo:
        undo.strengths["tom"] = 0.0
        assert pico.recipe.concepts[0].strength == 0.0 and pico.tokens == ("<tom>",)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 10**400, "loud", True])
def test_strengths_that_are_no_finite_numbers_are_refused(pico, strength):
    with pico.fold(make_concept(pico)) as undo:
        with pytest.raises(ConfigurationError, match="strength of anna is .*; allowed are finite numbers"):
            undo.strengths["anna"] = strength
        assert undo.strengths["anna"] == 1.0


def test_a_concept_that_is_not_in_the_weights_is_named(pico):
    pairs = [*pair(pico), (make_concept(pico, "tom", seed=3), 0.0)]
    undo = pico.fold(merge(pairs, algorithm="sum"))
    for name in ("bob", "tom"):
        with pytest.raises(
            ConfigurationError, match=f"concept '{name}' is not in the weights now; allowed are anna, r"
        ):
            undo.strengths[name] = 1.0
    assert "bob" not in undo.strengths and undo.strengths.get("tom") is None and "rex" in undo.strengths
    undo.restore()
    with pytest.raises(ConfigurationError, match="concept 'anna' is not in the weights now; allowed are none"):
        undo.strengths["anna"] = 1.0


def test_a_strength_cannot_be_deleted(pico):
    with pico.fold(make_concept(pico)) as undo:
        with pytest.raises(
            ConfigurationError, match="strength of anna cannot be deleted; allowed is setting it, and 0"
        ):
            del undo.strengths["anna"]


def test_mixed_columns_are_refused(pico):
    with pico.fold(merge(pair(pico), algorithm="ties")) as undo:
        before = weights(pico)
        with pytest.raises(
            ConfigurationError, match="strength of anna cannot be turned: the algorithm mixed the columns"
        ):
            undo.strengths["anna"] = 0.5
        assert same(weights(pico), before) and undo.strengths["anna"] == 0.8


def test_two_concepts_of_one_name_are_told_apart_by_their_content(pico):
    twins = [replace(make_concept(pico, "anna", seed=seed), tokens={}) for seed in (1, 2)]
    with pico.fold(merge([(twin, 1.0) for twin in twins], algorithm="sum")) as undo:
        assert set(undo.strengths) == {twin.content_hash for twin in twins}
        with pytest.raises(ConfigurationError, match="2 concepts are called anna; allowed are their content hashes"):
            undo.strengths["anna"] = 0.5
        undo.strengths[twins[0].content_hash] = 0.0
        turned = weights(pico)
    with pico.folded(twins[1]):
        assert same(weights(pico), turned)


def test_a_strength_that_is_too_large_changes_nothing(pico):
    with pico.fold(merge(pair(pico), algorithm="sum")) as undo:
        before = weights(pico)
        with pytest.raises(ConfigurationError, match=r"layer '.*no longer finite; the strength of anna is 1e\+39"):
            undo.strengths["anna"] = 1e39
        assert same(weights(pico), before) and undo.strengths["anna"] == 0.8
        undo.strengths["anna"] = 0.5
    assert pico.recipe is None


def test_an_error_half_way_leaves_the_strength_of_before(pico, monkeypatch):
    untouched = weights(pico)
    with pico.fold(merge(pair(pico), algorithm="sum")) as undo:
        before, calls, original = weights(pico), [], Products._write_piece

        def failing(self, *arguments, **named):
            calls.append(1)
            if len(calls) == 3:
                raise MemoryError
            original(self, *arguments, **named)

        monkeypatch.setattr(Products, "_write_piece", failing)
        with pytest.raises(MemoryError):
            undo.strengths["anna"] = 0.1
        assert same(weights(pico), before) and undo.strengths["anna"] == 0.8
    assert same(weights(pico), untouched)


def test_a_turn_after_a_cast_starts_from_the_cast_originals(pico_folder):
    base = load_base(pico_folder)
    anna = make_concept(base)
    with base.fold(anna) as undo:
        base.pipeline.unet.to(torch.bfloat16)
        undo.strengths["anna"] = 0.5
        turned = weights(base)
    with base.folded(merge([(anna, 0.5)])):
        assert same(weights(base), turned)


def test_a_turn_waits_for_the_base(pico):
    undo = pico.fold(make_concept(pico))
    thread = threading.Thread(target=lambda: undo.strengths.__setitem__("anna", 0.5), daemon=True)
    with pico.locked():
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and undo.strengths["anna"] == 1.0
    thread.join(10)
    assert undo.strengths["anna"] == 0.5
    undo.restore()


def test_an_engine_by_itself(pico):
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    change = LowRank(torch.zeros(32, 1), torch.zeros(1, 24))
    change.up[3, 0], change.down[0, 5] = 2.0, 0.25
    weight = all_linear_layers(pico.family.components())[layer].weight
    before = weight.detach().clone()
    engine = FoldedWeights(named_modules(pico.family.components()), (Ingredient("anna", "person", 1.0, "hash", None),))
    engine.apply({layer: Stack.of("hash", change)})
    engine.strengths["hash"] = 3.0
    assert (weight - before).count_nonzero() == 1 and weight[3, 5] - before[3, 5] == pytest.approx(1.5, abs=1e-6)
    engine.restore()
    assert torch.equal(weight, before) and engine.changes == {} and len(engine.strengths) == 0
