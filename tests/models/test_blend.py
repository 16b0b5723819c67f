"""Blends: whatever their history, the weights, tokens and pictures are those of a fresh merge of the set."""

from __future__ import annotations

import copy
import random
import threading
import time
from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from orthoplex.models.weights.products import Products
from tests.pico import make_concept

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def any_pico(request, pico_folder) -> Base:
    return load_base(pico_folder, dtype=request.param)


def concepts(base: Base):
    return [
        make_concept(base, "anna", selection="linear", text_encoder=True, seed=1),
        make_concept(base, "rex", ranks=(1, 3), seed=2),
        make_concept(base, "lake", selection="attention", seed=3),
        make_concept(base, "tom", selection="none", seed=4),
    ]


def state(base: Base) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": value.detach().clone()
        for component, module in base.family.components().items()
        for name, value in module.state_dict().items()
        if "token_embedding" not in name
    }


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def fresh(base: Base, pairs, **named) -> dict[str, torch.Tensor]:
    with base.folded(merge(pairs, **named)):
        return state(base)


@pytest.mark.parametrize("algorithm", ["sum", "mean", "ties"])
def test_any_history_leaves_the_weights_of_a_fresh_merge_bit_for_bit(any_pico, algorithm):
    base, rng = any_pico, random.Random(0)
    members = concepts(base)
    untouched = state(base)
    blend = base.blend(members, algorithm=algorithm)
    seen = []
    for _ in range(25):
        names = [name for name in ("anna", "rex", "lake", "tom") if rng.random() < 0.6]
        blend.only(*names)
        for name in names:
            if rng.random() < 0.4:
                blend[name] = rng.choice((0.25, 1.0, -0.5, 2.0))
        if names and rng.random() < 0.3:
            del blend[names[0]]
        seen.append((dict(blend), state(base)))
    blend.restore()
    assert same(state(base), untouched) and base.recipe is None and base.tokens == ()
    by_name = {concept.name: concept for concept in members}
    for strengths, weights in seen:
        if strengths:
            pairs = [(by_name[name], strength) for name, strength in strengths.items()]
            assert same(fresh(base, pairs, algorithm=algorithm), weights)
        else:
            assert same(weights, untouched)


def test_parameters_keep_their_place_in_memory(pico):
    places = {name: item.data_ptr() for name, item in pico.family.denoiser.named_parameters()}
    with pico.blend(concepts(pico)) as blend:
        blend["anna"] = 0.3
        blend.only("rex")
        blend.only()
    assert places == {name: item.data_ptr() for name, item in pico.family.denoiser.named_parameters()}


def test_channels_last_does_not_detach_weights(pico):
    pico.family.channels_last()
    before = state(pico)
    with pico.blend(concepts(pico), algorithm="sum") as blend:
        pico.family.channels_first()
        blend["anna"] = 0.4
        first = state(pico)
        pico.family.channels_last()
        blend["anna"] = 0.5
        blend["anna"] = 0.4
        assert same(state(pico), first)
    assert same(state(pico), before)


def test_only_layers_whose_change_differs_are_written(pico, monkeypatch):
    members = concepts(pico)
    with pico.blend(members, algorithm="sum") as blend:
        written, original = [], Products.write

        def recording(self, targets, facts):
            written.extend(target.name for target in targets)
            original(self, targets, facts)

        monkeypatch.setattr(Products, "write", recording)
        blend["rex"] = 0.5
        assert sorted(written) == sorted(members[1].layers)
        written.clear()
        blend["rex"] = 0.5
        assert written == []


@pytest.mark.parametrize("place", ["memory", "pinned", "mapped"])
def test_originals_may_be_anywhere(pico, place, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before, pico.originals = state(pico), place
    with pico.blend(concepts(pico), algorithm="sum") as blend:
        blend["anna"] = 0.4
        assert blend.num_bytes > 0 and list(tmp_path.iterdir()) == []
    assert same(state(pico), before)
    pico.originals = "memory"
    with pytest.raises(ConfigurationError, match="originals is 'disk'; allowed are 'memory', 'pinned', 'mapped'"):
        pico.originals = "disk"


def test_it_maps_names_to_strengths(pico):
    anna, rex, *_ = concepts(pico)
    with pico.blend([anna, (rex, 0.5)], algorithm="sum") as blend:
        assert dict(blend) == {"anna": 1.0, "rex": 0.5} and len(blend) == 2 and blend[rex.content_hash] == 0.5
        del blend["rex"]
        assert dict(blend) == {"anna": 1.0} and "rex" not in blend and blend.members == ("anna", "rex")
        blend.only("rex")
        assert dict(blend) == {"rex": 0.5}
        blend.update({"anna": 0.2, "rex": 0.0})
        assert dict(blend) == {"anna": 0.2}
        assert [(item.name, item.strength) for item in blend.recipe.concepts] == [("anna", 0.2), ("rex", 0.0)]
        assert pico.recipe == blend.recipe
        with pytest.raises(KeyError, match="concept 'rex' is not in the blend now; in it are anna"):
            del blend["rex"]
        with pytest.raises(ConfigurationError, match="concept 'bob' is no member of the blend; allowed are anna, rex"):
            blend["bob"] = 1.0
        for strength in (float("nan"), float("inf"), "loud", True):
            with pytest.raises(ConfigurationError, match="strength of anna is .*; allowed are finite numbers"):
                blend["anna"] = strength
        assert dict(blend) == {"anna": 0.2}
    assert pico.recipe is None
    with pytest.raises(ConfigurationError, match="the blend has been taken out of the base"):
        blend.only()


def test_concepts_come_and_go(pico):
    anna, rex, lake, _ = concepts(pico)
    blend = pico.blend(algorithm="sum")
    assert blend.recipe is None and pico.tokens == () and list(blend) == []
    blend.add(anna, 0.5)
    blend.add(lake)
    assert pico.tokens == ("<anna>", "<lake>")
    with pytest.raises(ConfigurationError, match="concept anna is in the blend already"):
        blend.add(anna)
    blend.forget("anna")
    assert pico.tokens == ("<lake>",) and blend.members == ("lake",)
    now = state(pico)
    blend.restore()
    assert same(fresh(pico, [(lake, 1.0)], algorithm="sum"), now)


def test_two_versions_of_a_concept_may_be_members(pico):
    first, second = (make_concept(pico, "anna", seed=seed) for seed in (1, 2))
    with pytest.raises(ConfigurationError, match="token <anna> is claimed by concepts anna and anna"):
        pico.blend([first, second])
    assert pico.recipe is None and pico.tokens == ()
    with pico.blend([first, (second, 0.0)], algorithm="sum") as blend:
        with pytest.raises(ConfigurationError, match="2 concepts are called anna; allowed are their content hashes"):
            blend["anna"] = 0.5
        blend.update({first.content_hash: 0.0, second.content_hash: 1.0})
        now, made = state(pico), generate(pico, "<anna>", num_inference_steps=1, expect_names=False)[0]
    assert same(fresh(pico, [(second, 1.0)]), now)
    assert generate(pico, "<anna>", merge=second, num_inference_steps=1)[0].tobytes() == made.tobytes()


def test_pictures_are_those_of_a_fresh_merge_and_absent_names_are_left_out(pico):
    anna, rex, *_ = concepts(pico)
    with pico.blend([anna, rex], algorithm="sum") as blend:
        del blend["rex"]
        blended = generate(pico, "<anna> and <rex>", num_inference_steps=1)[0]
    alone = generate(pico, "<anna> and", merge=merge([(anna, 1.0)]), num_inference_steps=1)[0]
    assert blended.tobytes() == alone.tobytes()
    with pytest.raises(PromptError):
        generate(pico, "<anna> and <rex>", merge=anna, num_inference_steps=1)


def test_nothing_else_goes_in_beside_a_blend(pico):
    anna, rex, *_ = concepts(pico)
    with pico.blend([anna]):
        with pytest.raises(BaseModelError, match="has anna folded in; restore it before the next fold"):
            pico.fold(rex)
        with pytest.raises(BaseModelError, match="has anna folded in; restore it before the next fold"):
            pico.blend([rex])


def test_a_change_that_fails_leaves_the_last_good_state(pico, monkeypatch):
    anna, rex, lake, tom = concepts(pico)
    with pico.blend([anna, rex], algorithm="sum") as blend:
        before, tokens = state(pico), pico.tokens
        with pytest.raises(ConfigurationError, match="no longer finite"):
            blend["anna"] = 1e39
        stranger = replace(lake, layers={**lake.layers, "unet.nowhere": LowRank(torch.ones(2, 1), torch.ones(1, 2))})
        with pytest.raises(BaseModelError, match="layer 'unet.nowhere' is not in the base"):
            blend.add(stranger)
        original, calls = Products._write_piece, []

        def failing(self, *arguments, **named):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            original(self, *arguments, **named)

        monkeypatch.setattr(Products, "_write_piece", failing)
        with pytest.raises(KeyboardInterrupt):
            blend.only("rex")
        assert same(state(pico), before) and dict(blend) == {"anna": 1.0, "rex": 1.0} and pico.tokens == tokens
        blend.only("rex")
        now = state(pico)
    assert same(fresh(pico, [(rex, 1.0)]), now)


def test_an_unmerged_blend_leaves_the_weights_alone(pico):
    anna, rex, *_ = concepts(pico)
    before = state(pico)
    with pico.blend([anna, rex], algorithm="sum", unmerged=True) as blend:
        blend.only("rex")
        made = generate(pico, "<rex>", num_inference_steps=1)[0]
        assert same(state(pico), before) and set(blend.unmerged_layers) == set(rex.layers)
    alone = generate(pico, "<rex>", merge=rex, unmerged=True, num_inference_steps=1)[0]
    assert made.tobytes() == alone.tobytes()


def test_a_change_waits_for_the_base(pico):
    with pico.blend(concepts(pico), algorithm="sum") as blend:
        thread = threading.Thread(target=lambda: blend.only("rex"), daemon=True)
        with pico.locked():
            thread.start()
            thread.join(0.2)
            assert thread.is_alive() and len(blend) == 4
        thread.join(10)
        assert list(blend) == ["rex"]


def test_a_live_picture_takes_a_change_at_the_end_of_a_step(pico):
    steps, states = [], []
    with pico.blend(concepts(pico), algorithm="sum") as blend:
        thread = threading.Thread(target=lambda: blend.only("rex"), daemon=True)

        def progress(now):
            steps.append(now.step)
            states.append(list(blend))
            if now.step == 1:
                thread.start()
                while not pico._lock._waiting:
                    time.sleep(0.001)

        generate(pico, "a cat", num_inference_steps=4, live=True, progress=progress, expect_names=False)
        thread.join(10)
        assert states[0] == ["anna", "lake", "rex", "tom"] and states[1:] == [["rex"]] * 3
        now = state(pico)
    assert same(fresh(pico, [(concepts(pico)[1], 1.0)]), now)


def test_a_change_that_is_not_waited_for_is_not_made(pico, monkeypatch):
    def interrupted(waiting):
        raise KeyboardInterrupt

    with pico.blend(concepts(pico), algorithm="sum") as blend:
        errors = []

        def ask():
            try:
                blend.only("rex")
            except KeyboardInterrupt as error:
                errors.append(error)

        with pico.locked():
            monkeypatch.setattr(pico._lock, "_wait", interrupted)
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join(10)
        assert len(errors) == 1 and len(blend) == 4


def test_an_error_of_a_waiting_change_is_raised_where_it_was_asked_for(pico):
    errors = []

    def ask():
        try:
            blend["anna"] = 1e39
        except ConfigurationError as error:
            errors.append(str(error))

    with pico.blend(concepts(pico), algorithm="sum") as blend:
        thread = threading.Thread(target=ask, daemon=True)

        def progress(now):
            if now.step == 1:
                thread.start()
                while not pico._lock._waiting:
                    time.sleep(0.001)

        generate(pico, "a cat", num_inference_steps=2, live=True, progress=progress, expect_names=False)
        thread.join(10)
        assert len(errors) == 1 and "no longer finite" in errors[0] and blend["anna"] == 1.0


def test_a_copy_of_a_base_has_a_blend_of_its_own(pico):
    with pico.blend(concepts(pico), algorithm="sum") as blend:
        before = state(pico)
        other = copy.deepcopy(pico)
        other._undo.only("rex")
        assert same(state(pico), before) and len(blend) == 4
        assert not same(state(other), before)
