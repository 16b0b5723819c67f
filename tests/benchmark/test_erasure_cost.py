"""The cost of erasure on a pico pipeline: what is taken, of which trainings, and that nothing of them is left."""

import json
import math
from contextlib import closing
from functools import partial
from itertools import islice

import pytest

from orthoplex.benchmark import training_cost
from orthoplex.benchmark.erasure_cost import FORMS, ErasureSettings, erasure_cost, trainings
from orthoplex.errors import ConfigurationError
from orthoplex.models import load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train

QUICK = {"prior_pictures": 2, "prior_inference_steps": 1, "erasure_prompts": 8, "batch_size": 2}


@pytest.fixture(scope="module")
def settings(pico_folder) -> ErasureSettings:
    return ErasureSettings(base=str(pico_folder), training=QUICK, rounds=2, steps=3)


@pytest.fixture(scope="module")
def cost(settings, sources):
    return erasure_cost(settings, sources[0])


def test_every_form_is_timed_in_every_round(cost):
    assert set(cost["step_seconds"]) == set(cost["preparation_seconds"]) == {"none", "activation", "prediction"}
    for form, seconds in cost["step_seconds_of_rounds"].items():
        assert len(seconds) == 2 and min(seconds) <= cost["step_seconds"][form] <= max(seconds)
        assert all(time > 0 for time in seconds)
    assert set(cost["step_seconds_to_none"]) == {"activation", "prediction"}


def test_ratios_are_those_of_the_rounds(cost):
    none, form = (cost["step_seconds_of_rounds"][name] for name in ("none", "prediction"))
    expected = sum(with_it / without for with_it, without in zip(form, none, strict=True)) / 2
    assert cost["step_seconds_to_none"]["prediction"] == pytest.approx(expected)


def test_the_options_are_the_defaults_but_for_layers_and_form(settings):
    defaults = TrainingConfig()
    for form, options in FORMS.items():
        config = ErasureSettings().config(form)
        assert (config.erasure_share, config.erasure_batch_size) == (
            defaults.erasure_share,
            defaults.erasure_batch_size,
        )
        assert (config.method, config.layers, config.batch_size) == ("orthogonal", "attention", 8)
        assert all(getattr(config, key) == value for key, value in options.items())
        assert config.steps > ErasureSettings().rounds * ErasureSettings().steps
    assert settings.config("none").batch_size == 2


def test_the_default_of_the_prediction_form_stays_within_its_budget(pico_folder, sources, tmp_path):
    """A step may cost 1.6 times as much: so many more pictures may go through the network, each once."""
    base, seen = load_base(str(pico_folder)), []
    dataset = ConceptDataset.from_folder(
        sources[0].folder, resolution=32, token="<anna>", class_word="person", kind="person"
    )
    options = {
        "prior_pictures": 2,
        "prior_inference_steps": 1,
        "erasure_prompts": 8,
        "sample_every": 0,
        "steps": 3,
        "layers": "attention",
    }
    config = TrainingConfig.from_mapping({**options, "erasure": 1.0, "erasure_form": "prediction"})
    hook = base.pipeline.unet.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    with closing(train(base, dataset, config, output=tmp_path / "anna.safetensors")) as records:
        next(records)
        seen.clear()
        next(records)
    hook.remove()
    assert config.batch_size < sum(seen) <= 1.6 * config.batch_size


def test_trainings_go_on_side_by_side_and_penalise_what_they_should(settings, sources):
    with trainings(settings, sources[0]) as running:
        taken = {form: [] for form in FORMS}
        for _ in range(4):
            for form, records in running.items():
                taken[form] += islice(records, 1)
    for form, records in taken.items():
        assert [record.step for record in records] == [0, 1, 2, 3]
        assert (records[-1].erasure is None) == (form == "none")
        assert math.isfinite(records[-1].loss)
    assert taken["activation"][-1].erasure != taken["prediction"][-1].erasure


@pytest.mark.parametrize(("name", "value"), [("rounds", 0), ("steps", -1)])
def test_nothing_to_time_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} of the cost of erasure is {value}; allowed: 1 or more"):
        ErasureSettings(**{name: value})


def test_the_command_writes_erasure_and_its_table(pico_folder, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(training_cost, "sample_sources", lambda names: sources[:1])
    monkeypatch.setattr(training_cost, "ErasureSettings", partial(ErasureSettings, training=QUICK))
    output = tmp_path / "training-cost.json"
    training_cost.main(
        ["--targets", "--erasure-bases", str(pico_folder), "--erasure-rounds", "1", "--output", str(output)]
    )
    (cost,) = json.loads(output.read_text())["erasure"].values()
    assert cost["concept"] == "anna" and cost["settings"]["rounds"] == 1
    table = output.with_suffix(".md").read_text()
    rows = [line for line in table.splitlines() if "prediction" in line]
    assert rows[0].rstrip(" |").endswith(f"{cost['step_seconds_to_none']['prediction']:.2f}")
    assert f"| {cost['erasure_batch_size']} |" in rows[0]
