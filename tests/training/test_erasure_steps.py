"""Weights that go on learning in directions that are silent already."""

import signal
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
import torch

from orthoplex.adapters import METHODS, AdapterConfig, create_adapter
from orthoplex.concepts import load_concept
from orthoplex.errors import ConfigurationError
from orthoplex.training import TrainingConfig, checkpoint_path, checkpoint_step, loop, stages, train
from orthoplex.training.checkpoint import TrainingState
from orthoplex.training.continuation import is_finished
from tests.pico import vectors_of
from tests.training.test_closed_form_erasure import FOREIGN, TEXT_ONLY, erased, said
from tests.training.test_loop import assert_same_concept, last_of

CLOSED = {**TEXT_ONLY, "erasure": 5.0, "erasure_form": "closed-form", "sample_every": 0}
VARIANTS = {
    "orthogonal": {},
    "layer-wise": {"token_vectors": "layer-wise"},
    "keys and values": {"token_vectors": "keys-and-values", "num_vectors": 1},
    "tokens first": {"token_steps": 1},
    "dual": {"method": "dual", "token_steps": 1},
}
variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


def finished(base, dataset, config, path, **options):
    last_of(train(base, dataset, config, output=path, foreign_prompts=FOREIGN, **options))
    return load_concept(path, base=base.identity)


@variants
def test_they_begin_where_the_closed_form_ends(base, dataset, config, tmp_path, changes, monkeypatch):
    """What a silent step that moves nothing leaves is the shorter training, silenced: no weight jumps."""
    config = replace(config, **CLOSED, **changes, steps=4)
    short = replace(config, steps=3, erasure=0.0)
    expected = erased(
        base,
        finished(base, dataset, short, tmp_path / "short.safetensors"),
        replace(short, erasure=5.0),
        foreign_prompts=FOREIGN,
    )
    factor = loop._learning_rate_factor
    monkeypatch.setattr(loop, "_learning_rate_factor", lambda *told: 0.0 if told[1].after_erasure else factor(*told))
    found = finished(base, dataset, replace(config, erasure_steps=1), tmp_path / "anna.safetensors")
    for layer, change in expected.layers.items():
        torch.testing.assert_close(found.layers[layer].delta(), change.delta(), rtol=1e-3, atol=1e-5)
    for token, vector in vectors_of(expected.tokens).items():
        assert torch.equal(vectors_of(found.tokens)[token], vector)


def test_they_may_learn_at_a_rate_of_their_own(config):
    config = replace(config, **CLOSED, steps=6, erasure_steps=2)
    slower = replace(config, erasure_rate=0.25)
    weights, last = stages.stages(config)
    assert last.after_erasure and stages.stages(slower) == (weights, last)
    for stage, share in ((weights, 1.0), (last, 0.25)):
        for step in range(stage.start, stage.stop):
            factor = loop._learning_rate_factor(config, stage, step)
            assert factor > 0 and loop._learning_rate_factor(slower, stage, step) == share * factor


def test_they_learn_and_stay_silent(base, dataset, config, tmp_path):
    plain = replace(config, **TEXT_ONLY, erasure=0.0, sample_every=0)
    loud = finished(base, dataset, replace(plain, steps=10), tmp_path / "loud.safetensors")
    told = replace(plain, erasure=30.0, erasure_form="closed-form", steps=20)
    quiet = finished(base, dataset, replace(told, erasure_steps=10), tmp_path / "quiet.safetensors")
    solved = erased(base, loud, told, foreign_prompts=FOREIGN)
    own = ["a photo of <anna> person"]
    share = [said(base, one, FOREIGN) / said(base, one, own, one) for one in (loud, quiet)]
    assert share[1] < 0.5 * share[0]
    assert said(base, quiet, own, quiet) > said(base, solved, own, solved)


@variants
@pytest.mark.parametrize("stop", [3, 4, 5])
def test_resumed_equals_unbroken(base, dataset, config, tmp_path, changes, stop):
    config = replace(config, **CLOSED, **changes, steps=6, erasure_steps=2)  # the silent steps are the fifth and sixth
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    finished(base, dataset, config, straight)
    with closing(train(base, dataset, config, output=broken, foreign_prompts=FOREIGN)) as records:
        assert last_of(islice(records, stop + 1)).step == stop
    finished(base, dataset, config, broken, resume=True)
    assert_same_concept(straight, broken)


@pytest.mark.parametrize("where", ["erasure_directions", "ready_stage", "_denoising_loss"])
@pytest.mark.parametrize("name", ["orthogonal", "layer-wise", "keys and values"])
def test_ctrl_c_before_the_first_of_them_loses_nothing(base, dataset, config, tmp_path, monkeypatch, where, name):
    config = replace(config, **CLOSED, **VARIANTS[name], steps=4, erasure_steps=2)
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    finished(base, dataset, config, straight)
    module = stages if where == "erasure_directions" else loop
    original, calls = getattr(module, where), []

    def interrupting(*told):
        calls.append(where)
        if len(calls) == {"erasure_directions": 1, "ready_stage": 2, "_denoising_loss": 3}[where]:
            signal.raise_signal(signal.SIGINT)
        return original(*told)

    with monkeypatch.context() as patch:
        patch.setattr(module, where, interrupting)
        stopped = list(train(base, dataset, config, output=broken, foreign_prompts=FOREIGN))
    assert stopped[-1].output is None and checkpoint_path(broken).is_file()
    finished(base, dataset, config, broken, resume=True)
    assert_same_concept(straight, broken)


@pytest.mark.parametrize("step", [3, 4])
def test_up_follows_once_and_goes_back_if_no_step_was_taken(step):
    """A stage that begins at step 3; entered there, or gone on with at step 4."""
    told = AdapterConfig(method="orthogonal", rank=2, slots=2, slot=0)
    adapter = create_adapter(told, layer="a", out_features=4, in_features=6, concept_id="anna-0", seed=0)
    state = TrainingState.begin(TrainingConfig(**CLOSED), {"a": adapter}, torch.zeros(1, 3))
    adapter.up.grad = torch.zeros_like(adapter.up)
    state.optimizer.step()
    adapter.up.data.fill_(1.0)
    state.step, stage = step, stages.Stage(3, 6, tokens=False, weights=True, after_erasure=True)
    with stages._set_directions(state, stage, {"a": (torch.ones(2, 6), 4.0)}):
        assert torch.equal(adapter.down, torch.ones(2, 6))
        assert adapter.up.unique().tolist() == [0.25 if step == 3 else 1.0]
        assert (adapter.up in state.optimizer.state) == (step == 4)
    assert adapter.up.unique().tolist() == [1.0]
    state.step = 3
    with stages._set_directions(state, stage, {"a": (torch.ones(2, 6), 4.0)}):
        state.step = 4
    assert adapter.up.unique().tolist() == [0.25]


def test_a_token_that_says_its_class_word_is_told(base, dataset, config, tmp_path, caplog):
    options = {**CLOSED, "erasure": 1e5, "token_vectors": "frozen", "steps": 3, "erasure_steps": 1}
    finished(base, dataset, replace(config, **options), tmp_path / "anna.safetensors")
    assert "erasure 100000 left 0 %" in caplog.text


def test_an_error_at_the_end_keeps_the_steps(base, dataset, config, tmp_path, monkeypatch):
    output = tmp_path / "anna.safetensors"
    config = replace(config, **CLOSED, steps=2, erasure_steps=1)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="memory"):
        patched.setattr(loop, "with_inputs", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
        list(train(base, dataset, config, output=output))
    assert checkpoint_step(checkpoint_path(output)) == 2
    last_of(train(base, dataset, config, output=output, resume=True))
    assert output.is_file() and is_finished(output)


def test_the_manifest_says_what_was_done(base, dataset, config, tmp_path):
    concept = finished(
        base, dataset, replace(config, **CLOSED, slot=1, steps=3, erasure_steps=1), tmp_path / "anna.safetensors"
    )
    manifest = concept.manifest
    assert (manifest.slot, manifest.basis_id) == (None, None) and concept.inputs is not None
    assert (manifest.training["erasure"], manifest.training["erasure_steps"], manifest.training["slot"]) == (5.0, 1, 1)
    with pytest.raises(ConfigurationError, match="anna has erasure already, with weight 5.0"):
        erased(base, concept, replace(config, **CLOSED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "none", "erasure": 5.0}, "layers is 'none' with text_encoder false"),
        ({"erasure": 0.0}, "erasure_steps is 2 and erasure is 0.0 in form 'closed-form'; allowed is 0"),
        ({"erasure_form": "activation"}, "erasure is 5.0 in form 'activation'; allowed is 0"),
        ({"method": "lora"}, "method is 'lora'; allowed are methods 'orthogonal', 'dual', or 0"),
        ({"layers": "attention"}, "layers is 'attention' with text_encoder false; allowed are 'cross-attention-kv'"),
        ({"text_encoder": True}, "layers is 'cross-attention-kv' with text_encoder true"),
        ({"steps": 2}, "erasure_steps is 2 and steps is 2, 0 of them for tokens alone; allowed are 0 to 1"),
        (
            {"steps": 4, "token_steps": 2},
            "erasure_steps is 2 and steps is 4, 2 of them for tokens alone; allowed are 0 to 1",
        ),
        ({"steps": 3, "token_steps": 4}, "token_steps is 4 of 3 steps"),
        ({"erasure_steps": -1}, "erasure_steps is -1; allowed are whole numbers from 0"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig(**{**CLOSED, "steps": 10, "erasure_steps": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 3),
        ({"erasure_steps": 0}, 0),
        ({"erasure_steps": 7}, 7),
        ({"erasure": 0.0}, 0),
        ({"erasure_form": "activation"}, 0),
        ({"method": "lora"}, 0),
        ({"layers": "attention"}, 0),
        ({"layers": "none"}, 0),
        ({"text_encoder": True}, 0),
        ({"token_vectors": "frozen"}, 0),
        ({"token_vectors": "keys-and-values"}, 0),
        ({"token_vectors": "layer-wise"}, 3),
        ({"token_steps": 9}, 0),
        ({"token_steps": 8}, 1),
        ({"method": "dual", "steps": 3}, 1),
    ],
)
def test_how_many_there_are_unless_told(changes, expected):
    config = TrainingConfig(**{**CLOSED, "steps": 10, **changes})
    assert config.steps_after_erasure == expected and config.solves_at_end == (config.solves_erasure and expected == 0)
    assert sum(stage.stop - stage.start for stage in stages.stages(config) if stage.after_erasure) == expected


def test_files_that_do_not_tell_had_none(config):
    told = replace(config, **CLOSED, steps=4)
    assert (
        TrainingConfig.recorded(told.to_json() | {"concept_id": "anna-0", "erasure_steps": 2}).steps_after_erasure == 2
    )
    before = {key: value for key, value in told.to_json().items() if key != "erasure_steps"}
    assert (
        TrainingConfig.recorded(before).steps_after_erasure == 0
        and TrainingConfig.from_mapping(before).steps_after_erasure == 1
    )


@pytest.mark.parametrize("method", METHODS)
def test_only_frozen_directions_turn(method):
    told = AdapterConfig(method=method, rank=2, slots=2, slot=0) if method != "full" else AdapterConfig(method=method)
    adapter = create_adapter(told, layer="a", out_features=4, in_features=6, concept_id="anna-0", seed=0)
    rows = torch.ones(adapter.down.shape)
    if METHODS[method].has_frozen_directions:
        adapter.set_directions(rows)
        assert torch.equal(adapter.down, rows)
        with pytest.raises(ConfigurationError, match=r"layer a: .* is given directions \(1, 6\); allowed are \("):
            adapter.set_directions(rows[:1])
    else:
        with pytest.raises(ConfigurationError, match="allowed are methods with frozen directions"):
            adapter.set_directions(rows)
