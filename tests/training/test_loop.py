import json
import math
import signal
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from orthoplex.activations import FOREIGN_PROMPTS
from orthoplex.adapters import METHODS
from orthoplex.concepts import decode_thumbnail, load_concept, read_manifest
from orthoplex.errors import CapacityError, ConfigurationError, OrthoplexError
from orthoplex.merging import merge
from orthoplex.subspaces import BASIS_ID, slot_from_id
from orthoplex.training import checkpoint_path, log_path, loop, samples_folder, stages, train
from orthoplex.training.continuation import is_finished
from orthoplex.training.records import StepRecord, begin_log
from orthoplex.training.sampling import make_pictures
from tests.pico import METHOD_OPTIONS, linear_layers, vectors_of

FEW_PROMPTS = FOREIGN_PROMPTS[:24]
"""As many as the text encoder's output is wide: more leave no direction that could be silent on them."""


def snapshot(base):
    return {
        f"{component} {name}": value.clone()
        for component, module in base.family.components().items()
        for name, value in module.state_dict().items()
    }


def last_of(records):
    *_, last = records
    return last


def log_lines(output):
    return [json.loads(line) for line in log_path(output).read_text().splitlines()]


def assert_same_concept(first, second):
    ours, theirs = load_file(first), load_file(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert replace(read_manifest(first), created="") == replace(read_manifest(second), created="")


@pytest.mark.parametrize("method", [method for method in METHODS if method not in METHOD_OPTIONS])
@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_training_ends_with_a_concept(base, dataset, config, tmp_path, method, text_encoder):
    config = replace(config, method=method, text_encoder=text_encoder, steps=3)
    output = tmp_path / "anna.safetensors"
    before = snapshot(base)
    records = list(train(base, dataset, config, output=output))
    assert [record.step for record in records] == [0, 1, 2, 3]
    assert [record.output for record in records] == [None, None, None, output]
    assert records[0].loss is None and all(math.isfinite(record.loss) for record in records[1:])
    assert records[1].erasure == 0.0 and records[3].erasure > 0.0
    assert is_finished(output)
    concept = load_concept(output, base=base.identity)
    assert set(concept.layers) == set(linear_layers(base, "attention", text_encoder))
    assert all(factors.up.any() for factors in concept.layers.values())
    assert list(concept.tokens) == ["<anna>", "<anna>_1"]
    after = snapshot(base)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert base.tokens == ()


@pytest.mark.parametrize("line", [b"\xff\xfe", b'{"step": "a"}', b"[" * 9999, b"[1]"])
def test_a_damaged_log_line_is_dropped(tmp_path, line):
    path = tmp_path / "a.log.jsonl"
    path.write_bytes(line + b'\n{"step": 1}\n{"step": 3}\n')
    begin_log(path, 2)
    assert path.read_text() == '{"step": 1}\n'


def test_token_vectors_first_then_weights_alone(base, dataset, config, tmp_path):
    """What does not learn in a stage keeps every bit of it."""
    config = replace(config, token_steps=3, checkpoint_every=1)
    kept = {}
    for record in train(base, dataset, config, output=tmp_path / "anna.safetensors"):
        if 0 < record.step < 6:
            kept[record.step] = load_file(checkpoint_path(tmp_path / "anna.safetensors"))
    ups = [name for name in kept[1] if name.startswith("parameter") and name.endswith("up")]
    vectors = [tensors["parameter token vectors"] for tensors in kept.values()]
    assert all(not kept[3][name].any() for name in ups) and all(kept[4][name].any() for name in ups)
    assert not torch.equal(vectors[0], vectors[2])
    assert torch.equal(vectors[2], vectors[3]) and torch.equal(vectors[2], vectors[4])


def test_dual_directions_hear_the_tokens_of_the_finished_concept(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    config = replace(config, method="dual", layers="cross-attention-kv", rank=0, erasure=0.0)
    last_of(train(base, dataset, config, output=output, foreign_prompts=FEW_PROMPTS))
    concept = load_concept(output, base=base.identity)
    with base.with_tokens(concept.tokens) as names, torch.no_grad():
        tokens = base.family.words.ids(dataset.captions)
        features = base.family.condition(tokens).features
        places = base.family.words.places(tokens, names).unbind(1)
    own = torch.cat([features[place] for place in places])
    foreign = base.family.condition(base.family.words.ids(FEW_PROMPTS)).features.flatten(0, 1)
    for factors in concept.layers.values():
        assert factors.rank == 2 and factors.up.any()
        heard = (own @ factors.down.T).square().mean(0)
        leaked = (foreign @ factors.down.T).square().mean(0)
        assert heard[0] == pytest.approx(1.0, rel=1e-3)
        assert leaked[0] < 0.5 and not (leaked > heard).any()


@pytest.mark.parametrize("layers", ["cross-attention-kv", "attention"])
def test_the_file_keeps_what_keys_and_values_see(base, dataset, config, tmp_path, layers):
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, layers=layers, steps=1), output=output))
    assert (load_concept(output).inputs is not None) == (layers == "cross-attention-kv")


def test_manifest(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, steps=1), output=output))
    manifest = read_manifest(output)
    concept_id = f"anna-{dataset.dataset_hash[:16]}"
    assert (manifest.name, manifest.kind, manifest.class_word) == ("anna", "person", "person")
    assert (manifest.trigger, manifest.base, manifest.method) == ("<anna> person", base.identity, "orthogonal")
    assert (manifest.basis_id, manifest.dataset_hash) == (BASIS_ID, dataset.dataset_hash)
    assert manifest.slot == manifest.adapter["slot"] == slot_from_id(concept_id, 4)
    assert manifest.training["concept_id"] == concept_id
    assert (manifest.training["steps"], manifest.training["slot"]) == (1, "auto")
    thumbnail = decode_thumbnail(manifest.thumbnail)
    assert thumbnail is not None and thumbnail.size == (32, 32)


@pytest.mark.parametrize(
    ("changes", "slot"), [({"slot": 2}, 2), ({"basis": "random"}, None), ({"method": "lora"}, None)]
)
def test_slot_in_the_manifest(base, dataset, config, tmp_path, changes, slot):
    config = replace(config, steps=1, erasure=0.0, **changes)
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, config, output=output))
    assert read_manifest(output).slot == slot


def test_slots_beyond_capacity_are_refused_at_once(base, dataset, config, tmp_path):
    with pytest.raises(CapacityError, match="slot"):
        next(train(base, dataset, replace(config, slot=99), output=tmp_path / "anna.safetensors"))


@pytest.mark.parametrize("method", [method for method in METHODS if method not in METHOD_OPTIONS])
def test_the_loss_falls_when_every_step_is_the_same(base, dataset, config, tmp_path, monkeypatch, method):
    drawn = loop.TrainingData.batch
    monkeypatch.setattr(loop.TrainingData, "batch", lambda data, config, step: drawn(data, config, 0))
    config = replace(config, method=method, steps=12, erasure=0.0, warmup=1, caption_dropout=0.0, schedule="constant")
    config = replace(config, learning_rate=2 * config.weight_learning_rate)
    records = list(train(base, dataset, config, output=tmp_path / "anna.safetensors"))
    losses = [record.loss for record in records[1:]]
    assert losses[-1] < (0.99 if method == "blockwise" else 0.98) * losses[0]  # blockwise has a quarter of the rows
    assert all(later < earlier for earlier, later in zip(losses[::4], losses[4::4], strict=False))


@pytest.mark.parametrize("form", ("activation", "prediction"))
def test_erasure_keeps_the_update_silent(base, dataset, config, tmp_path, form):
    config = replace(config, steps=25, warmup=1, erasure_form=form, learning_rate=1.2e-2)
    energies = {}
    for weight in (1e-6, 100.0):
        config = replace(config, erasure=weight)
        records = train(base, dataset, config, output=tmp_path / "anna.safetensors", foreign_prompts=FEW_PROMPTS)
        energies[weight] = last_of(records).erasure
    assert energies[100.0] < 0.2 * energies[1e-6]


@pytest.mark.parametrize("form", ("activation", "prediction"))
def test_erasure_takes_part_in_a_share_of_steps(base, dataset, config, tmp_path, form):
    config = replace(config, steps=6, erasure=1.0, erasure_form=form, erasure_share=0.5)
    records = list(train(base, dataset, config, output=tmp_path / "anna.safetensors"))
    assert [record.erasure is not None for record in records[1:]] == [False, True] * 3


def test_the_concept_equals_what_was_trained(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    config = replace(config, steps=2, sample_every=1)
    records = list(train(base, dataset, config, output=output))
    concept = load_concept(output, base=base.identity)
    with base.folded(merge([(concept, 1.0)])):
        images = make_pictures(base, config, ["a photo of <anna> person"], seed=0).images()
    trained, folded, before = (
        np.asarray(image).astype(int) for image in (records[-1].images[0], images[0], records[0].images[0])
    )
    assert np.abs(trained - folded).max() <= 1
    assert np.abs(trained - before).max() > 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("checkpoint_every", [0, 2])
def test_resumed_equals_unbroken(base, dataset, config, tmp_path, method, checkpoint_every):
    options = METHOD_OPTIONS.get(method, {}) | {"token_norm_limit": 0.05}
    config = replace(config, method=method, prior_weight=0.5, checkpoint_every=checkpoint_every, **options)
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    whole = list(train(base, dataset, config, output=straight))
    with closing(train(base, dataset, config, output=broken)) as records:
        first = list(islice(records, 4))
    assert first[-1].step == 3 and not broken.exists()
    assert checkpoint_path(broken).is_file()
    rest = list(train(base, dataset, config, output=broken, resume=True))
    assert [record.step for record in rest] == [4, 5, 6]
    assert [record.loss for record in first + rest] == [record.loss for record in whole]
    assert_same_concept(straight, broken)
    assert is_finished(broken)
    assert [line["step"] for line in log_lines(broken)] == list(range(7))


@pytest.mark.parametrize("where", ["_denoising_loss", "_update", "append_log", "_learning_rate_factor"])
def test_ctrl_c_anywhere_keeps_a_checkpoint(base, dataset, config, tmp_path, monkeypatch, where):
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    last_of(train(base, dataset, config, output=straight))
    calls, original = [], getattr(loop, where)

    def interrupting(*arguments):
        calls.append(where)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, where, interrupting)
        stopped = list(train(base, dataset, config, output=broken))
    assert stopped[-1].output is None and checkpoint_path(broken).is_file()
    last_of(train(base, dataset, config, output=broken, resume=True))
    assert_same_concept(straight, broken)


def test_ctrl_c_within_an_update_waits_for_its_end(base, dataset, config, tmp_path, monkeypatch):
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    last_of(train(base, dataset, config, output=straight))
    original = torch.optim.AdamW.step

    def interrupting(optimizer):
        signal.raise_signal(signal.SIGINT)
        return original(optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupting)
        list(train(base, dataset, config, output=broken))
    rest = list(train(base, dataset, config, output=broken, resume=True))
    assert rest[0].step == 2
    assert_same_concept(straight, broken)


def test_sample_pictures_come_first_and_on_schedule(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    config = replace(config, steps=5, sample_every=2, sample_prompts=("a photo of {trigger}", "a dog"))
    records = list(train(base, dataset, config, output=output))
    assert [record.step for record in records if record.images] == [0, 2, 4, 5]
    assert all(len(record.images) == 2 for record in records if record.images)
    names = sorted(path.name for path in samples_folder(output).iterdir())
    assert names[:3] == ["step-00000-0.png", "step-00000-1.png", "step-00002-0.png"] and len(names) == 8
    with Image.open(samples_folder(output) / names[0]) as image:
        assert image.size == (32, 32)


def test_samples_do_not_change_the_result(base, dataset, config, tmp_path):
    outputs = [tmp_path / f"{i}.safetensors" for i in (0, 1)]
    for output, every in zip(outputs, (0, 1), strict=True):
        last_of(train(base, dataset, replace(config, steps=2, sample_every=every), output=output))
    first, second = (load_concept(output).content_hash for output in outputs)
    assert first == second


def test_log(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    records = list(train(base, dataset, replace(config, steps=2), output=output))
    lines = log_lines(output)
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[2]["loss"] == records[2].loss and lines[2]["erasure"] == records[2].erasure
    assert lines[0]["loss"] is None and lines[1]["learning_rate"] > 0


def test_log_of_a_continued_run_drops_what_is_done_again(tmp_path):
    path = tmp_path / "anna.log.jsonl"
    path.write_text("".join(json.dumps(StepRecord(i, 9, 1.0, None, 0.1, 2.0).to_json()) + "\n" for i in range(5)))
    with path.open("a") as stream:
        stream.write('{"step": 1, "lo')  # the machine went down here
    begin_log(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    begin_log(path, 0)
    assert path.read_text() == ""


def test_without_erasure_nothing_foreign_is_made(base, dataset, config, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("not asked for")

    monkeypatch.setattr(stages, "make_prior_pictures", refuse)
    records = list(train(base, dataset, replace(config, steps=1, erasure=0.0), output=tmp_path / "a.safetensors"))
    assert records[-1].erasure is None


@pytest.mark.parametrize("changes", [{"mixed_precision": "bf16"}, {"prior_pictures": 0}, {"min_snr_gamma": 5.0}])
def test_other_options_train(base, dataset, config, tmp_path, changes):
    record = last_of(train(base, dataset, replace(config, steps=2, **changes), output=tmp_path / "a.safetensors"))
    assert record.output is not None and record.erasure > 0


@pytest.mark.parametrize(("able", "told"), [(True, "bf16"), (False, "no")])
def test_the_file_tells_what_auto_stood_for(base, dataset, config, tmp_path, monkeypatch, able, told):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": able})
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, steps=1, mixed_precision="auto"), output=output))
    assert load_concept(output).manifest.training["mixed_precision"] == told


@pytest.mark.parametrize("num_vectors", [1, 3])
def test_number_of_token_vectors(base, dataset, config, tmp_path, num_vectors):
    output = tmp_path / "anna.safetensors"
    config = replace(config, steps=2, num_vectors=num_vectors, token_norm_limit=0.01)
    last_of(train(base, dataset, config, output=output))
    tokens = load_concept(output).tokens
    assert list(tokens) == ["<anna>", "<anna>_1", "<anna>_2"][:num_vectors]
    assert all(vector.norm() <= 0.01001 for vector in vectors_of(tokens).values())


def test_token_vectors_learn(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, erasure=0.0), output=output))
    tokens = load_concept(output).tokens
    with base.with_tokens(tokens):
        with torch.no_grad():
            learned = base.family.condition(base.family.words.ids(["a photo of <anna> person"])).features
            plain = base.family.condition(base.family.words.ids(["a photo of person person person"])).features
    assert not torch.allclose(learned, plain, atol=1e-4)


def test_learning_rate_schedule(config):
    config = replace(config, steps=10, warmup=4, schedule="constant")
    (whole,) = stages.stages(config)
    factors = [loop._learning_rate_factor(config, whole, step) for step in range(10)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    cosine = replace(config, schedule="cosine", warmup=0)
    assert loop._learning_rate_factor(cosine, whole, 0) == 1.0
    assert loop._learning_rate_factor(cosine, whole, 5) == pytest.approx(0.5)
    assert loop._learning_rate_factor(cosine, whole, 9) < 0.03


def test_every_stage_has_a_schedule_of_its_own(config):
    config = replace(config, steps=10, token_steps=4, warmup=0, schedule="cosine")
    first, second = stages.stages(config)
    assert (first.start, first.stop, second.start, second.stop) == (0, 4, 4, 10)
    assert loop._learning_rate_factor(config, first, 2) == pytest.approx(0.5)
    assert loop._learning_rate_factor(config, second, 4) == 1.0
    assert loop._learning_rate_factor(config, second, 7) == pytest.approx(0.5)


def test_a_loss_that_is_not_finite_names_the_step(base, dataset, config, tmp_path, monkeypatch):
    original, calls = loop._denoising_loss, []

    def exploding(*arguments):
        calls.append(1)
        return original(*arguments) * (math.nan if len(calls) == 2 else 1.0)

    monkeypatch.setattr(loop, "_denoising_loss", exploding)
    with pytest.raises(OrthoplexError, match=r"step 2 of 'anna': the loss is nan; .*learning_rate is 0.006"):
        list(train(base, dataset, config, output=tmp_path / "anna.safetensors"))
    assert base.tokens == ()


def test_output_must_be_a_concept_file(base, dataset, config, tmp_path):
    with pytest.raises(ConfigurationError, match=r"anna.bin; allowed are names that end in .safetensors"):
        train(base, dataset, config, output=tmp_path / "anna.bin")


def test_a_base_with_concepts_is_refused(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, steps=1), output=output))
    with base.folded(load_concept(output)), pytest.raises(ConfigurationError, match="concepts folded in"):
        train(base, dataset, config, output=tmp_path / "bob.safetensors")
