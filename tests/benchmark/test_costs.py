"""Costs on a pico pipeline: what must hold for any model holds there."""

import json
import math
import sys

import pytest
import torch

from benchmarks import merge_cost
from benchmarks.merge_cost import Contest, MergeSettings, random_concepts
from orthoplex.benchmark import targets, training_cost
from orthoplex.benchmark.picture_cost import picture_cost
from orthoplex.benchmark.training_cost import CASES, CostSettings, TrainingStep, saved_bytes
from orthoplex.errors import ConfigurationError, MissingExtraError, OrthoplexError
from orthoplex.models import load_base
from tests.pico import linear_layers


@pytest.fixture(scope="module")
def kept(pico_folder):
    """Bytes kept for backward in every case."""
    settings = CostSettings(target=str(pico_folder), rank=2, batch_size=2, tokens=8)
    step = TrainingStep(load_base(pico_folder), settings)
    numbers = {}
    for case in CASES:
        with step.case(case) as adapters:
            numbers[case] = saved_bytes(step, adapters, throughout=True)
    return numbers


def test_orthogonal_keeps_less_than_lora(kept):
    assert kept["frozen"] < kept["orthogonal"] < kept["lora"]


def test_our_lora_keeps_what_pefts_does(kept):
    assert kept["lora"] == pytest.approx(kept["peft"], rel=0.02)


def test_a_graph_that_begins_later_keeps_less(kept, pico_folder):
    settings = CostSettings(target=str(pico_folder), rank=2, batch_size=2, tokens=8)
    step = TrainingStep(load_base(pico_folder), settings)
    with step.case("orthogonal") as adapters:
        assert saved_bytes(step, adapters) < kept["orthogonal"]


def test_the_frozen_down_factor_keeps_only_its_own_outputs(kept, pico_folder):
    # of every layer: z = down x, rank numbers of 4 bytes for every row of x
    rows = []
    base = load_base(pico_folder)
    step = TrainingStep(base, CostSettings(target="", rank=2, batch_size=2, tokens=8))
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[:-1].numel()))
        for layer in linear_layers(base, "attention").values()
    ]
    step.loss()
    for hook in hooks:
        hook.remove()
    assert kept["orthogonal"] - kept["frozen"] == 4 * 2 * sum(rows)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with (
        pytest.raises(MissingExtraError, match=r"peft.*: pip install 'orthoplex\[costs\]'"),
        targets.peft_lora(torch.nn.Linear(1, 1), [], 1),
    ):
        pass


def test_cases_leave_the_denoiser_as_it_was(pico_folder):
    step = TrainingStep(load_base(pico_folder), CostSettings(target="", rank=2, tokens=8))
    before, num_layers = step.loss().item(), len(linear_layers(step.base, "attention"))
    factors = {"frozen": 0, "orthogonal": 1, "lora": 2, "peft": 2}
    for case in CASES:
        with step.case(case) as adapters:
            assert len(adapters.trained) == factors[case] * num_layers
            assert step.loss().item() == pytest.approx(before)
        assert step.loss().item() == before


def test_an_unknown_case_is_refused(pico_folder):
    step = TrainingStep(load_base(pico_folder), CostSettings(target="", rank=2, tokens=8))
    with pytest.raises(ConfigurationError, match="'dora'; allowed: frozen, orthogonal"), step.case("dora"):
        pass


def test_seconds_are_taken_of_every_case_in_every_round(pico_folder):
    seconds = training_cost.measure_seconds(CostSettings(target=str(pico_folder), rank=2, tokens=8, rounds=2))
    assert {case: len(times) for case, times in seconds.items()} == dict.fromkeys(CASES, 2)
    assert all(time > 0 for times in seconds.values() for time in times)


def test_a_case_in_this_process_is_written_as_json(pico_folder, capsys):
    settings = json.dumps({"target": str(pico_folder), "rank": 2, "tokens": 8})
    training_cost.main(["--case", "orthogonal", "--settings", settings])
    values = json.loads(capsys.readouterr().out)
    assert values["saved_bytes"] > 0
    assert values["peak_mib"] >= values["resting_mib"] > 0


@pytest.mark.slow
def test_training_cost_in_fresh_processes(pico_folder, tmp_path):
    output = tmp_path / "training-cost.json"
    training_cost.main(
        ["--targets", str(pico_folder), "--erasure-bases", "--rounds", "2", "--rank", "2", "--output", str(output)]
    )
    cost = json.loads(output.read_text())["targets"][str(pico_folder)]
    assert cost["orthogonal_to_peft"]["adapter_saved"] < 0.5
    assert set(cost["cases"]) == set(CASES)
    assert cost["cases"]["frozen"]["adapter_saved_mib"] == 0.0
    assert f"{cost['cases']['lora']['step_seconds']:.4f}" in output.with_suffix(".md").read_text()


def test_a_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(training_cost, "_MODULE", "orthoplex.nowhere")
    with pytest.raises(OrthoplexError, match=r"measuring 'frozen' on 'somewhere' failed: .*No module named orthoplex"):
        training_cost.training_cost(CostSettings(target="somewhere"))


@pytest.fixture
def contest(pico_folder, tmp_path):
    base = load_base(pico_folder)
    settings = MergeSettings(target="", num_concepts=3, rank=2)
    return Contest(base, random_concepts(base, settings, tmp_path), linear_layers(base, "attention"))


def test_our_merge_is_exact_and_its_undo_too(contest):
    errors = []
    contest.orthoplex(lambda: errors.append(contest.merged_error()))
    assert errors[0] <= 1.05 * contest.rounding_floor()
    assert contest.undo_difference() == (0.0, 0.0)


def test_the_error_of_nothing_is_one(contest):
    assert contest.merged_error() == pytest.approx(1.0)


def test_diffusers_merges_the_same_files(contest):
    errors = []
    turn = contest.diffusers(lambda: errors.append(contest.merged_error()))
    assert errors[0] < 1e-4
    assert min(turn.load, turn.merge, turn.undo) > 0
    contest.undo_difference()
    assert contest.undo_difference() == (0.0, 0.0)  # mended by the first call


def test_merge_cost(pico_folder, tmp_path):
    output = tmp_path / "merge-cost.json"
    merge_cost.main(
        ["--targets", str(pico_folder), "--concepts", "2", "--rank", "3", "--rounds", "1", "--output", str(output)]
    )
    rows = json.loads(output.read_text())["merges"]
    (row,) = rows
    assert row["settings"]["num_concepts"] == 2
    assert row["exactness"]["orthoplex"]["changed_by_undo"] == 0.0
    assert row["limit"]["seconds"] > 0
    layers = linear_layers(load_base(pico_folder), "attention").values()
    assert row["limit"]["operations"] == 2 * 2 * 3 * sum(layer.weight.numel() for layer in layers)
    assert all(math.isfinite(value) for value in row["seconds"]["diffusers"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_concepts": 0, "rank": 1}, "num_concepts is 0"),
        ({"num_concepts": 1, "rank": 0}, "rank is 0"),
        ({"num_concepts": 1, "rank": 1, "dtype": "int8"}, "'int8'; allowed: float32"),
    ],
)
def test_settings_that_are_not_allowed(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        MergeSettings(target="", **arguments)


def test_random_sd15_has_the_published_shape(monkeypatch):
    # a sixteenth of the width keeps the test small; the real one is built by the same lines
    small = {**targets._SD15_UNET, "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32}
    monkeypatch.setattr(targets, "_SD15_UNET", small)
    base = targets.load_target("sd15")
    assert len(linear_layers(base, "attention")) == 128
    weight = next(iter(linear_layers(base, "attention").values())).weight
    assert 0.015 < float(weight.std()) < 0.025
    assert not any(parameter.requires_grad for parameter in base.pipeline.unet.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in base.pipeline.unet.parameters())


def test_a_pictures_parts_are_timed_in_both_layouts(pico_folder):
    found = picture_cost(load_base(pico_folder), batch_size=1, rounds=2)
    assert list(found["parts"]) == ["denoiser", "decoder", "training"]
    for row in found["parts"].values():
        usual, last = row["seconds"]["usual"], row["seconds"]["channels last"]
        assert usual > 0 and last > 0 and row["ratio"] == usual / last
    assert found["turning"] > 0


@pytest.mark.parametrize("name", ["batch_size", "rounds"])
def test_picture_costs_without_rounds_or_pictures_are_refused(pico_folder, name):
    with pytest.raises(ConfigurationError, match=f"picture cost {name} is 0; allowed: 1 or more"):
        picture_cost(load_base(pico_folder), **{"batch_size": 1, "rounds": 1, name: 0})
