from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from orthoplex.adapters import create_adapter
from orthoplex.errors import ConfigurationError
from orthoplex.training.checkpoint import (
    TrainingState,
    checkpoint_path,
    checkpoint_step,
    load_checkpoint,
    save_checkpoint,
)

IDENTITY = {"name": "anna", "config": {"steps": 6}}


def begin(config, seed=0):
    config = replace(config, method="lora", rank=2, weight_decay=0.5)
    adapters = {
        layer: create_adapter(config.adapter, layer=layer, out_features=3, in_features=4, concept_id="x", seed=seed)
        for layer in ("unet.a", "unet.b")
    }
    return TrainingState.begin(config, adapters, torch.ones(2, 5))


def step(state, value, **changes):
    for parameter in state.parameters().values():
        parameter.grad = torch.full_like(parameter, value)
    options = {"learning_rate_factor": 1.0, "gradient_clip": 0.0, "token_norm_limit": None}
    state.update(**(options | changes))


def values(state):
    return {name: parameter.detach().clone() for name, parameter in state.parameters().items()}


def test_path_lies_beside_the_output(tmp_path):
    assert checkpoint_path(tmp_path / "anna.safetensors") == tmp_path / "anna.checkpoint.safetensors"


def test_parameters_are_named(config):
    names = {"unet.a up", "unet.a down", "unet.b up", "unet.b down", "token vectors"}
    assert set(begin(config).parameters()) == names


def test_a_step_counts_and_clears(config):
    state = begin(config)
    before = values(state)
    step(state, 1.0)
    assert state.step == 1
    assert all(parameter.grad is None for parameter in state.parameters().values())
    assert all(not torch.equal(before[name], now) for name, now in values(state).items())


def test_learning_rates_of_the_groups(config):
    state = begin(replace(config, learning_rate=0.25, token_learning_rate=0.125))
    before = values(state)
    step(state, 1.0, learning_rate_factor=0.5)
    # Adam's first step is the learning rate itself; up starts at zero, so its decay is zero
    moved = {name: (before[name] - now).abs().max().item() for name, now in values(state).items()}
    assert moved["unet.a up"] == pytest.approx(0.125, rel=1e-4)
    assert moved["token vectors"] == pytest.approx(0.0625, rel=1e-4)
    assert [group["lr"] for group in state.optimizer.param_groups] == [0.25, 0.25, 0.125]


def test_the_text_encoder_may_learn_at_a_rate_of_its_own(config):
    options = {"out_features": 3, "in_features": 4, "concept_id": "x", "seed": 0}
    layers = ("unet.a", "text_encoder.a")
    adapters = {layer: create_adapter(config.adapter, layer=layer, **options) for layer in layers}
    for own, expected in ((None, 0.25), (0.5, 0.5)):
        config = replace(config, learning_rate=0.25, text_encoder=True, text_encoder_learning_rate=own)
        state = TrainingState.begin(config, adapters, torch.ones(2, 5), ["text_encoder.a"])
        before = values(state)
        step(state, 1.0)
        moved = {name: (before[name] - now).abs().max().item() for name, now in values(state).items()}
        assert (moved["unet.a up"], moved["text_encoder.a up"]) == pytest.approx((0.25, expected), rel=1e-2)


def test_gradients_are_clipped_per_group(config):
    state = begin(config)
    step(state, 100.0, gradient_clip=1.0)
    weights = [state.parameters()[name] for name in state.parameters() if name != "token vectors"]
    first_moments = [state.optimizer.state[weight]["exp_avg"] / 0.1 for weight in weights]
    assert torch.cat([moment.flatten() for moment in first_moments]).norm().item() == pytest.approx(1.0, rel=1e-4)


def test_token_vectors_are_held_to_their_limit(config):
    state = begin(config)
    step(state, 0.0, token_norm_limit=0.5)
    assert state.vectors.norm(dim=1).tolist() == pytest.approx([0.5, 0.5])
    step(state, 0.0, token_norm_limit=9.0)
    assert state.vectors.norm(dim=1).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("steps", [0, 2])
def test_a_loaded_state_goes_on_bit_for_bit(config, tmp_path, steps):
    path = tmp_path / "x.checkpoint.safetensors"
    state = begin(config)
    for i in range(steps):
        step(state, 1.0 + i)
    save_checkpoint(state, path, IDENTITY)
    other = begin(config, seed=1)
    load_checkpoint(other, path, IDENTITY)
    assert other.step == steps
    for this in (state, other):
        step(this, 0.5)
    for name, value in values(state).items():
        assert torch.equal(value, values(other)[name]), name


def test_saving_leaves_one_file(config, tmp_path):
    path = tmp_path / "x.checkpoint.safetensors"
    save_checkpoint(begin(config), path, IDENTITY)
    save_checkpoint(begin(config), path, IDENTITY)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"name": "bob", "config": {"steps": 6}}, "made with name 'anna', this run has 'bob'"),
        ({"name": "anna", "config": {"steps": 7}}, "made with steps 6, this run has 7"),
        ({"name": "anna", "config": {"steps": 6}, "x": 1}, "made with x None, this run has 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(config, tmp_path, identity, message):
    path = tmp_path / "x.checkpoint.safetensors"
    save_checkpoint(begin(config), path, IDENTITY)
    with pytest.raises(ConfigurationError, match=message):
        load_checkpoint(begin(config), path, identity)


def test_options_newer_than_a_checkpoint_have_the_values_without_them(config, tmp_path):
    """Of every option that it lacks, which no one gave; so old checkpoints go on, and differences name true values."""
    path, options = tmp_path / "x.checkpoint.safetensors", config.to_json()
    newer = ("gradient_accumulation_steps", "optimizer", "resolution", "buckets", "token_start", "erasure_steps")
    before = {key: value for key, value in options.items() if key not in newer}
    save_checkpoint(begin(config), path, {"config": before})
    without = {**options, "erasure_steps": 0}
    load_checkpoint(begin(config), path, {"config": without})
    for key, own, value in [
        ("optimizer", "'adamw'", "adamw-8bit"),
        ("gradient_accumulation_steps", 1, 2),
        ("buckets", False, True),
        ("erasure_steps", 0, 4),
        ("token_start", "'class word'", "rare word"),
    ]:
        with pytest.raises(ConfigurationError, match=f"made with {key} {own}, this run has {value!r}; both must"):
            load_checkpoint(begin(config), path, {"config": {**without, key: value}})


def test_a_damaged_checkpoint_is_named(config, tmp_path):
    path = tmp_path / "x.checkpoint.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="x.checkpoint.safetensors cannot be read"):
        load_checkpoint(begin(config), path, IDENTITY)


def test_a_checkpoint_of_other_layers_is_refused(config, tmp_path):
    path = tmp_path / "x.checkpoint.safetensors"
    state = begin(config)
    save_checkpoint(
        TrainingState(dict(list(state.adapters.items())[:1]), state.vectors, state.optimizer), path, IDENTITY
    )
    with pytest.raises(ConfigurationError, match="lacks the tensor 'parameter unet.b up'"):
        load_checkpoint(begin(config), path, IDENTITY)


def test_what_differs_is_told_in_the_order_of_the_run(config, tmp_path):
    path = tmp_path / "x.checkpoint.safetensors"
    save_checkpoint(begin(config), path, {"dataset": "a", "name": "anna"})
    with pytest.raises(ConfigurationError, match="made with name 'anna', this run has 'bob'"):
        load_checkpoint(begin(config), path, {"name": "bob", "dataset": "b"})


@pytest.mark.parametrize(
    "header",
    ["{}", "[]", '{"step": "2", "identity": {}}', '{"step": 2, "identity": []}', pytest.param("[" * 9999, id="nested")],
)
def test_a_damaged_header_is_named(config, tmp_path, header):
    path = tmp_path / "x.checkpoint.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata={"orthoplex_checkpoint": header})
    with pytest.raises(ConfigurationError, match="x.checkpoint.safetensors cannot be read"):
        load_checkpoint(begin(config), path, IDENTITY)
    with pytest.raises(ConfigurationError, match="x.checkpoint.safetensors cannot be read"):
        checkpoint_step(path)


def test_a_tensor_of_another_shape_is_named(config, tmp_path):
    path = tmp_path / "x.checkpoint.safetensors"
    save_checkpoint(begin(config), path, IDENTITY)
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors["parameter unet.b up"] = tensors["parameter unet.b up"][:1]
    save_file(tensors, path, metadata=header)
    with pytest.raises(ConfigurationError, match=r"'parameter unet.b up' with shape \(1, .*; allowed is .* damaged"):
        load_checkpoint(begin(config), path, IDENTITY)
