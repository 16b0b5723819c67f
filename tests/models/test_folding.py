"""Folding concepts into the weights and taking them out, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from orthoplex.models.weights.products import Products
from tests.pico import make_concept, tokens_of

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def any_pico(request, pico_folder) -> Base:
    return load_base(pico_folder, dtype=request.param)


def snapshot(base: Base) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": value.clone()
        for component, module in base.family.components().items()
        for name, value in module.state_dict().items()
    }


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def one_layer(base: Base, change: LowRank, layer: str = KEY):
    return replace(make_concept(base), layers={layer: change}, tokens={})


def test_after_twenty_random_folds_every_weight_is_what_it_was(any_pico):
    before = snapshot(any_pico)
    parameters = {name: id(p) for m in any_pico.family.components().values() for name, p in m.named_parameters()}
    for seed in range(20):
        selection = ("cross-attention-kv", "cross-attention", "attention", "linear")[seed % 4]
        concepts = [
            (
                make_concept(any_pico, name, selection=selection, text_encoder=seed % 2 == 0, seed=seed + i, scale=3.0),
                0.7,
            )
            for i, name in enumerate(("anna", "rex"))
        ]
        with any_pico.folded(merge(concepts)):
            assert not same_bits(snapshot(any_pico), before)
    assert same_bits(snapshot(any_pico), before)
    assert parameters == {
        name: id(p) for m in any_pico.family.components().values() for name, p in m.named_parameters()
    }


def test_folded_weights_are_the_float64_sum_rounded_once(any_pico):
    concepts = [
        (make_concept(any_pico, name, selection="linear", text_encoder=True, ranks=(1, 2, 4), seed=i), strength)
        for i, (name, strength) in enumerate((("anna", 1.0), ("rex", 0.8), ("lake", -0.5)))
    ]
    layers = any_pico.family.every_layer()
    exact = {name: layers[name].weight.double() for name in concepts[0][0].layers}
    for concept, strength in concepts:
        for name, factors in concept.layers.items():
            exact[name] = exact[name] + strength * factors.up.double() @ factors.down.double()
    floor = torch.finfo(any_pico.dtype).eps / 2
    accumulation = 16 * torch.finfo(torch.float32).eps
    with any_pico.folded(merge(concepts)):
        for name, expected in exact.items():
            error = (layers[name].weight.double() - expected).abs()
            assert bool((error <= (floor + accumulation) * expected.abs() + accumulation).all()), name


def test_a_written_out_fold(pico):
    change = LowRank(torch.zeros(32, 1), torch.zeros(1, 24))
    change.up[3, 0] = 2.0
    change.down[0, 5] = 0.25
    weight = pico.family.every_layer()[KEY].weight
    before = weight.clone()
    with pico.folded(one_layer(pico, change)):
        difference = weight - before
        assert difference.count_nonzero() == 1
        assert difference[3, 5] == pytest.approx(0.5, abs=1e-6)
    assert torch.equal(weight, before)


def test_layers_of_one_shape_and_rank_take_one_product(pico, monkeypatch):
    calls = []
    original = Products._write_piece

    def counting(self, piece, *arguments, **named):
        calls.append((len(piece), *piece[0].original.values.shape))
        original(self, piece, *arguments, **named)

    monkeypatch.setattr(Products, "_write_piece", counting)
    concept = make_concept(pico, selection="attention")
    with pico.folded(concept):
        pass
    assert sorted(calls) == [(8, 32, 24), (24, 32, 32)]
    assert len(concept.layers) == 8 + 24


def test_an_error_inside_restores_everything(pico):
    before = snapshot(pico)
    tokenizer = pico.pipeline.tokenizer
    with pytest.raises(ZeroDivisionError), pico.folded(make_concept(pico)):
        raise ZeroDivisionError
    assert same_bits(snapshot(pico), before) and pico.pipeline.tokenizer is tokenizer and pico.recipe is None


def test_an_error_while_folding_restores_everything(pico, monkeypatch):
    before = snapshot(pico)
    original = Products._write_piece
    calls = []

    def failing(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        original(self, *arguments, **named)

    monkeypatch.setattr(Products, "_write_piece", failing)
    with pytest.raises(MemoryError):
        pico.fold(make_concept(pico))
    assert len(calls) == 2 and same_bits(snapshot(pico), before) and pico.recipe is None


def test_a_token_in_the_vocabulary_leaves_the_weights_alone(pico):
    before = snapshot(pico)
    with pico.with_tokens(tokens_of({"<anna>": torch.zeros(24)})):
        with pytest.raises(ConfigurationError, match="token '<anna>' is in the base already"):
            pico.fold(make_concept(pico))
    assert same_bits(snapshot(pico), before) and pico.recipe is None


def test_a_missing_layer_is_named_and_nothing_is_changed(pico):
    before = snapshot(pico)
    concept = make_concept(pico)
    stranger = replace(
        concept, layers={**concept.layers, "unet.nowhere.to_k": LowRank(torch.ones(2, 1), torch.ones(1, 2))}
    )
    with pytest.raises(BaseModelError, match="layer 'unet.nowhere.to_k' is not in the base, which has"):
        pico.fold(stranger)
    assert same_bits(snapshot(pico), before)


def test_a_wrong_shape_is_named(pico):
    with pytest.raises(BaseModelError, match=rf"layer '{KEY}': the change has shape \(2, 3\).*weight has \(32, 24\)"):
        pico.fold(one_layer(pico, LowRank(torch.ones(2, 1), torch.ones(1, 3))))


def test_another_base_is_refused(pico):
    concept = make_concept(pico)
    manifest = replace(concept.manifest, base=replace(pico.identity, hash="f" * 64, name="dreams"))
    with pytest.raises(
        BaseModelError, match=r"anna: trained on base 'dreams' \(family sd1, hash f{12}\), this is 'pipeline' \(family"
    ):
        pico.fold(replace(concept, manifest=manifest))


def test_a_fold_inside_a_fold_is_refused(pico):
    with pico.folded(make_concept(pico)):
        with pytest.raises(BaseModelError, match="base 'pipeline' has anna folded in; restore it before the next fold"):
            pico.fold(make_concept(pico, "rex"))
        assert pico.recipe is not None and pico.tokens == ("<anna>",)


def test_fold_and_restore_as_a_pair_of_calls(pico):
    before = snapshot(pico)
    undo = pico.fold(make_concept(pico, num_vectors=2))
    assert pico.tokens == ("<anna>", "<anna>_1")
    assert undo.recipe.names == ("anna",)
    undo.restore()
    undo.restore()
    assert same_bits(snapshot(pico), before) and pico.tokens == ()


def test_restoring_before_later_tokens_are_out_is_refused(pico):
    undo = pico.fold(make_concept(pico))
    with pico.with_tokens(tokens_of({"<rex>": torch.zeros(24)})):
        with pytest.raises(BaseModelError, match="tokens <anna> cannot be taken out before"):
            undo.restore()
    undo.restore()


def test_strength_zero_is_the_base_tokens_included(pico):
    before = snapshot(pico)
    with pico.folded(merge([(make_concept(pico), 0.0)])):
        inside = snapshot(pico)
        assert inside.keys() == before.keys() and all(torch.equal(inside[name], before[name]) for name in before)
        assert pico.tokens == ()


def test_a_cast_while_folded_does_not_lose_the_originals(pico_folder):
    base = load_base(pico_folder)
    weight = base.family.every_layer()[KEY].weight
    before = weight.clone()
    with base.folded(make_concept(base)):
        base.pipeline.unet.to(torch.bfloat16)
    after = base.family.every_layer()[KEY].weight
    assert after.dtype == torch.bfloat16
    assert torch.equal(after, before.to(torch.bfloat16))


def test_a_cast_of_the_whole_base_while_folded_reaches_the_token_table_too(pico_folder):
    base = load_base(pico_folder)
    before = base.pipeline.text_encoder.get_input_embeddings().weight.clone()
    with base.folded(make_concept(base)):
        base.pipeline.to(torch.bfloat16)
    after = base.pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(after, before.to(torch.bfloat16))


@pytest.mark.parametrize("strengths", [(1e39, 1.0), (1e25, 1e25)])
def test_weights_that_are_not_finite_are_refused_and_nothing_is_changed(pico, strengths):
    before = snapshot(pico)
    strength, scale = strengths
    concepts = [(make_concept(pico), 1.0), (make_concept(pico, "rex", seed=1), strength)]
    with pytest.raises(
        ConfigurationError, match=r"layer 'unet\..*no longer finite; strengths are anna@1, rex@1e.*scale 1"
    ):
        pico.fold(merge(concepts, scale=scale))
    assert same_bits(snapshot(pico), before) and pico.recipe is None and pico.tokens == ()


def test_one_number_that_is_not_finite_is_found(pico):
    change = LowRank(torch.zeros(32, 1), torch.zeros(1, 24))
    change.up[3, 0] = float("nan")
    with pytest.raises(
        ConfigurationError, match=f"layer '{KEY}': with the change, numbers of the weight are no longer"
    ):
        pico.fold(one_layer(pico, change))
