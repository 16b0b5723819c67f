"""A family's own training defaults stand under the user's file and entries."""

from __future__ import annotations

import json

import pytest

from orthoplex.activations import ErasureOptions
from orthoplex.errors import ConfigurationError
from orthoplex.models import FAMILIES, load_base, training_defaults
from orthoplex.training import TrainingConfig


@pytest.mark.parametrize("pipeline_class", FAMILIES)
def test_rows_name_options_of_training(pipeline_class):
    row = FAMILIES[pipeline_class]
    config = TrainingConfig.from_mapping({}, defaults=row.training)
    assert {name: getattr(config, name) for name in row.training} == dict(row.training)


def test_unknown_options_of_a_row_are_refused():
    with pytest.raises(ConfigurationError, match="guidance_scael.*guidance_scale"):
        TrainingConfig.from_mapping({}, defaults={"guidance_scael": 7.5})


def test_a_folder_has_those_of_its_family_and_the_embedded_base_none(pico_folder, tmp_path):
    assert training_defaults("vignette") == {}
    assert training_defaults(pico_folder) == {"num_inference_steps": 30, "guidance_scale": 7.5}
    assert training_defaults(tmp_path) == training_defaults(tmp_path / "nowhere") == {}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Unknown"}))
    assert training_defaults(tmp_path) == {}


def test_the_file_and_entries_come_first(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("guidance_scale = 3.0\nsteps = 7\n")
    defaults = {"guidance_scale": 7.5, "num_inference_steps": 30, "steps": 9}
    config = TrainingConfig.from_toml(path, overrides=["steps=8"], defaults=defaults)
    assert (config.guidance_scale, config.num_inference_steps, config.steps) == (3.0, 30, 8)
    assert TrainingConfig.from_toml(None, defaults=defaults).guidance_scale == 7.5
    assert TrainingConfig.from_toml(None).guidance_scale == TrainingConfig().guidance_scale == 4.0


def test_a_loaded_base_knows_its_own_and_erasure_takes_its_part(pico_folder):
    base = load_base(pico_folder)
    assert base.training_defaults == training_defaults(pico_folder)
    assert load_base("vignette").training_defaults == {}
    options = ErasureOptions(weight=2.0).with_defaults(base.training_defaults)
    assert (options.weight, options.guidance_scale) == (2.0, 7.5)
