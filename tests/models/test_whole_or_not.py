"""Tokens and changes are in a base whole or not at all, and what could not be seen is refused."""

import copy
from dataclasses import replace

import pytest
import torch

from orthoplex.activations import merge_for
from orthoplex.concepts.tokens.keys_values import KeysValues
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import merge
from orthoplex.models import PictureRequest, load_base
from orthoplex.models.words import tokens_in
from tests.models.test_vectors import untouched
from tests.pico import TEXT_WIDTH, build_pico, make_concept, tokens_of


@pytest.mark.parametrize("kind", [{"layerwise": True}, {"keys_values": True}])
def test_an_interrupt_while_tokens_are_put_in_leaves_nothing(pico, monkeypatch, kind):
    concept = make_concept(pico, **kind)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with untouched(pico):
        with monkeypatch.context() as patch:
            patch.setattr(tokens_in, "ReadingLayer", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pico.fold(concept)
        assert pico.recipe is None and pico.tokens == ()
    with pico.folded(concept):  # which finds no trace of the first
        assert pico.tokens == ("<anna>",)


def test_keys_and_values_of_fused_projections_are_refused(tmp_path):
    base = load_base(build_pico(tmp_path / "base"))
    concept = make_concept(base, selection="none", keys_values=True)
    base.pipeline.fuse_qkv_projections()
    with pytest.raises(BaseModelError, match=r"attn2.to_k' is unused, because '.*attn2.to_kv' computes in its place"):
        base.fold(concept)
    assert base.recipe is None and base.tokens == ()
    base.pipeline.unfuse_qkv_projections()
    with base.folded(concept):
        assert base.tokens == ("<anna>",)


def test_a_concept_of_another_base_is_refused_before_anything_is_gathered(pico, tmp_path):
    other = load_base(build_pico(tmp_path / "other", seed=1))
    with pytest.raises(BaseModelError, match="^anna: trained on base .*, this is 'other'"):
        merge_for(other, [(make_concept(pico), 1.0)])


def test_a_concept_is_in_a_merge_once(pico):
    concept = replace(make_concept(pico), tokens={})
    with pytest.raises(ConfigurationError, match="concept anna is in the merge twice; allowed is once, with the sum"):
        merge([(concept, 0.3), (concept, 0.7)])


@pytest.mark.parametrize("strength", [True, "loud", float("nan"), 10**400])
def test_strengths_are_finite_numbers(pico, strength):
    with pytest.raises(ConfigurationError, match="concept anna: strength is .*; allowed are finite numbers"):
        merge([(make_concept(pico), strength)])


def test_replaced_tokens_fit_the_base_whatever_their_kinds(pico):
    vectors = {"<anna>": torch.zeros(TEXT_WIDTH), "<rex>": torch.zeros(TEXT_WIDTH)}
    own = {layer: torch.ones(2, width) for layer, width in pico.key_widths.items()}
    added = KeysValues.of(torch.ones(TEXT_WIDTH), own)
    with untouched(pico), pico.with_tokens(tokens_of(vectors)):
        plain = tokens_of({"<anna>": torch.ones(TEXT_WIDTH)})
        with pico.replaced_tokens({**plain, "<rex>": added}):
            assert pico.family.condition(["<rex>"]).features.shape[-1] == TEXT_WIDTH + 1
        foreign = KeysValues.of(torch.ones(TEXT_WIDTH), {"unet.nowhere": torch.ones(2, 4)})
        with pytest.raises(BaseModelError, match="'unet.nowhere' is not in the base"):
            with pico.replaced_tokens({"<rex>": foreign}):
                pass


def test_a_base_is_not_copied_while_tokens_do_more_than_a_row(pico):
    with pico.folded(make_concept(pico, layerwise=True)):
        with pytest.raises(BaseModelError, match="has tokens <anna> in, which do more than a row of the embedding"):
            copy.deepcopy(pico)
    assert copy.deepcopy(pico).tokens == ()


def test_a_concept_that_is_turned_off_is_not_saved_with_its_tokens(pico, tmp_path):
    with pico.fold(merge([(make_concept(pico), 1.0), (make_concept(pico, "rex", seed=1), 1.0)])) as undo:
        undo.strengths["anna"] = 0
        with pytest.raises(ConfigurationError, match="concept anna is turned to strength 0 and its tokens are in"):
            pico.save(tmp_path / "merged")
        undo.strengths["anna"] = 0.5
        assert pico.save(tmp_path / "merged").is_dir()


def test_pictures_that_are_left_half_way_free_the_networks(pico, monkeypatch):
    freed = []
    monkeypatch.setattr(pico.pipeline, "maybe_free_model_hooks", lambda: freed.append(True))
    steps = pico.family.picture(PictureRequest(["a cat"], torch.Generator().manual_seed(0), 3, 1.0))
    next(iter(steps))
    steps.close()
    assert freed == [True]


def test_tokens_that_were_prepared_before_a_cast_are_refused(tmp_path):
    base = load_base(build_pico(tmp_path / "base"))
    prepared = base.prepared_tokens(tokens_of({"<anna>": torch.zeros(TEXT_WIDTH)}))
    base.pipeline.to(torch.bfloat16)
    with pytest.raises(BaseModelError, match="tokens <anna> were prepared for a base with other tokens,"):
        prepared.put()
    assert base.pipeline.text_encoder.get_input_embeddings().weight.dtype == torch.bfloat16 and base.tokens == ()
