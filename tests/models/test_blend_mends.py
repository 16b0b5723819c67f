"""Blends beside what other threads are in the middle of, and what they let go of."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn

from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.generation import Picture, generate, generate_each
from orthoplex.models import load_base
from orthoplex.models.base_lock import BaseLock
from tests.models.test_blend import state
from tests.pico import make_concept


def in_another_thread(action) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


@pytest.mark.parametrize("inside", ["autocast", "inference mode"])
def test_a_change_takes_nothing_of_the_thread_that_runs_it(pico, inside):
    context = torch.autocast("cpu", torch.bfloat16) if inside == "autocast" else torch.inference_mode()
    members = [make_concept(pico, name, selection="linear", seed=seed) for seed, name in enumerate(("anna", "rex"))]
    with pico.blend(members, algorithm="ties") as blend:
        blend["anna"] = 0.5
        expected = state(pico)
        blend["anna"] = 1.0
        with context, pico.locked():
            thread = in_another_thread(lambda: blend.update({"anna": 0.5}))
            time.sleep(0.05)  # so that it waits for this thread, which runs it at the end
        thread.join()
        now = state(pico)
        assert all(torch.equal(now[name], value) for name, value in expected.items())
        blend["anna"] = 0.25  # no tensor of an inference mode is left behind


def test_a_blend_that_is_made_in_inference_mode_can_be_changed_outside(pico):
    with torch.inference_mode():
        blend = pico.blend([make_concept(pico, "anna")], algorithm="sum")
    with blend:
        blend["anna"] = 0.5


@pytest.mark.parametrize("kind", [{"layerwise": True}, {"keys_values": True}])
def test_tokens_that_widen_features_are_taken_out_when_the_picture_is_finished(pico, kind, monkeypatch):
    wide, rex = make_concept(pico, "lay", selection="none", seed=5, **kind), make_concept(pico, "rex", seed=2)
    settings = {"seed": 3, "num_inference_steps": 4, "guidance_scale": 2.0}
    (expected,) = generate(pico, "<lay> and a cat", merge=wide, **settings)
    threads: list[threading.Thread] = []
    with pico.blend([wide, (rex, 0.0)], algorithm="sum") as blend:
        merger, merges = blend._merger, []
        monkeypatch.setattr(blend, "_merger", lambda pairs: merges.append(pairs) or merger(pairs))

        def change(progress) -> None:
            if progress.step == 1:
                threads.append(in_another_thread(lambda: blend.only("rex")))
            time.sleep(0.05)

        (made,) = generate(pico, "<lay> and a cat", live=True, progress=change, **settings)
        threads[0].join()
        assert made.tobytes() == expected.tobytes() and dict(blend) == {"rex": 1.0} and len(merges) == 1


def test_changes_keep_their_order_behind_one_that_waits_for_the_end(pico):
    wide, rex = make_concept(pico, "lay", selection="none", keys_values=True), make_concept(pico, "rex", seed=2)
    threads: list[threading.Thread] = []
    with pico.blend([wide, rex], algorithm="sum") as blend:

        def change(progress) -> None:
            if progress.step == 1:
                for strengths in ({"lay": 0.0, "rex": 0.25}, {"rex": 0.75}):
                    threads.append(in_another_thread(lambda strengths=strengths: blend.update(strengths)))
                    time.sleep(0.05)

        generate(pico, "<lay>", live=True, progress=change, num_inference_steps=3)
        for thread in threads:
            thread.join()
        assert dict(blend) == {"rex": 0.75}


@pytest.mark.parametrize("options", [{"algorithm": "sum"}, {"algorithm": "ties", "unmerged": True}])
def test_masks_hold_for_what_is_put_in_later(pico, options):
    rex, tom = make_concept(pico, "rex", seed=2), make_concept(pico, "tom", seed=3)
    with pico.blend([(rex, 0.0), (tom, 0.0)], **options) as blend:
        blend.mask({rex.content_hash: torch.zeros(8, 8)})
        message = "is folded into its weight; masks" if options["algorithm"] == "sum" else "columns that are mixed"
        before = state(pico)
        with pytest.raises(ConfigurationError, match=message):
            blend.update({"rex": 1.0, "tom": 1.0})
        now = state(pico)
        assert not dict(blend) and all(torch.equal(now[name], value) for name, value in before.items())
        blend.mask(None)
        blend.update({"rex": 1.0, "tom": 1.0})
        with pytest.raises(ConfigurationError, match="mask of .* is a list; allowed is a tensor"):
            blend.mask({rex.content_hash: [[1.0]]})


def test_forgotten_and_refused_members_leave_no_copies(pico, monkeypatch):
    rex, others = make_concept(pico, "rex", seed=2), [make_concept(pico, f"c{i}", seed=40 + i) for i in range(3)]
    blend = pico.blend([rex], algorithm="sum")
    alone = blend.num_bytes
    for other in others:
        blend.add(other)
        assert blend.num_bytes > alone
        blend.forget(other.name)
    assert blend.num_bytes == alone
    monkeypatch.setattr(blend, "_merger", lambda pairs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        blend.add(others[0])
    assert blend.num_bytes == alone
    blend.restore()
    assert blend.num_bytes == 0


def test_a_member_that_began_at_strength_0_is_put_in_at_1(pico):
    anna, rex = make_concept(pico, "anna"), make_concept(pico, "rex", seed=2)
    with pico.blend([(anna, 0.0), (rex, 0.5)], algorithm="sum") as blend:
        blend.only("anna")
        assert dict(blend) == {"anna": 1.0}
        blend.only("rex")
        assert dict(blend) == {"rex": 0.5}


def test_a_blend_that_has_ended_says_so(pico):
    blend = pico.blend([make_concept(pico, "rex")], algorithm="sum")
    blend.restore()
    for change in (lambda: blend.update({"rex": 1.0}), lambda: blend.forget("rex"), lambda: blend.mask(None)):
        with pytest.raises(ConfigurationError, match="the blend has been taken out of the base; allowed is"):
            change()


def test_two_members_of_one_name_are_asked_for_by_their_hashes(pico):
    both = [(make_concept(pico, "rex", seed=1), 1.0), (make_concept(pico, "rex", seed=2), 0.0)]
    with pico.blend(both, algorithm="sum") as blend:
        with pytest.raises(KeyError, match="2 concepts are called rex; allowed are their content hashes"):
            _ = blend["rex"]


def test_what_is_no_concept_is_refused_by_name(pico):
    rex = make_concept(pico, "rex")
    with pytest.raises(ConfigurationError, match="concepts is .*rex.*; allowed is a list of concepts"):
        pico.blend(rex)
    with pytest.raises(ConfigurationError, match="the merge of picture 'a cat' is a tuple; allowed are"):
        generate_each(pico, [Picture("a cat", (rex, 1.0))])


def test_a_weight_that_was_replaced_meanwhile_is_refused_by_name(pico_folder):
    base = load_base(pico_folder)
    blend = base.blend([make_concept(base, "rex")], algorithm="sum")
    unet = base.pipeline.unet
    unet.load_state_dict({name: value.clone() for name, value in unet.state_dict().items()}, assign=True)
    with pytest.raises(BaseModelError, match="was replaced by another while a change is in it; allowed is"):
        blend["rex"] = 0.5


def test_rows_that_cannot_be_taken_out_do_not_keep_the_base(pico, monkeypatch):
    from orthoplex.models import changeable_base

    def broken(self) -> None:
        raise BaseModelError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(changeable_base.RowChanges, "restore", broken)
        with pytest.raises(BaseModelError, match="broken"), pico.rows([None]):
            pass
    with pico.folded(make_concept(pico, "rex")):
        pass


def test_ctrl_c_in_another_threads_change_stops_this_one_too():
    lock, told = BaseLock(), []

    def stopped() -> None:
        raise KeyboardInterrupt

    def asking() -> None:
        with pytest.raises(RuntimeError, match="interrupted by KeyboardInterrupt in another thread"):
            lock.run(stopped)
        told.append("the other thread")

    with pytest.raises(KeyboardInterrupt), lock:
        thread = in_another_thread(asking)
        time.sleep(0.05)
        lock.run_between_steps()
    thread.join()
    assert told == ["the other thread"]


def test_rows_that_do_not_fit_into_memory_leave_no_hooks(monkeypatch):
    from orthoplex.concepts import Stack
    from orthoplex.models.weights.added_change import AddedChange, RowStack
    from orthoplex.models.weights.unmerged import UnmergedWeights
    from tests.models.test_rows_and_masks import change

    layers = {"n.0": nn.Linear(4, 6), "n.1": nn.Linear(4, 6)}
    engine, calls = UnmergedWeights(layers), []
    place = AddedChange.place

    def full(self, dtype, device):
        calls.append(self)
        if len(calls) == 2:
            raise MemoryError
        return place(self, dtype, device)

    monkeypatch.setattr(AddedChange, "place", full)
    stack = RowStack.of([change("anna", (6, 4), 1), None])
    assert isinstance(stack, RowStack) and isinstance(stack.change, Stack)
    with pytest.raises(MemoryError):
        engine.put_rows({"n.0": stack, "n.1": stack})
    assert not engine.changes and not any(layer._forward_hooks for layer in layers.values())


@pytest.mark.parametrize("live", [False, True])
def test_the_thread_that_draws_may_not_take_wide_tokens_out_in_between(pico, live):
    wide, rex = make_concept(pico, "lay", selection="none", layerwise=True), make_concept(pico, "rex", seed=2)
    with pico.blend([wide, rex], algorithm="sum") as blend:
        with pytest.raises(
            ConfigurationError, match="was begun with <lay>, which would change; allowed is doing so after"
        ):
            generate(pico, "<lay>", live=live, progress=lambda now: blend.only("rex"), num_inference_steps=2)
        assert dict(blend) == {"lay": 1.0, "rex": 1.0}
        generate(pico, "<lay>", live=live, progress=lambda now: blend.update({"rex": 0.5}), num_inference_steps=2)
        blend.only("rex")


def test_items_are_of_one_moment(pico):
    anna, rex = make_concept(pico, "anna"), make_concept(pico, "rex", seed=2)
    with pico.blend([anna, rex], algorithm="sum") as blend:
        items = blend.items()
        blend.only("rex")
        assert dict(items) == {"anna": 1.0, "rex": 1.0} and dict(blend.items()) == {"rex": 1.0}


def test_a_pause_inside_of_a_pause_does_not_end_it():
    lock = BaseLock()
    with lock, lock.between_steps():
        lock.run_between_steps()
        assert lock.is_between_steps
    assert not lock.is_between_steps
