"""Presets: the trainings of papers, as options."""

from dataclasses import replace

import pytest

from orthoplex.concepts import read_manifest
from orthoplex.errors import ConfigurationError
from orthoplex.merging.paper_scales import PAPER_SCALES
from orthoplex.models import load_base
from orthoplex.training import PRESETS, TrainingConfig, train
from orthoplex.training.run import Run
from tests.pico_flow import build_flux
from tests.training.test_loop import last_of


def test_the_first_preset_is_no_change():
    assert TrainingConfig.from_mapping({"preset": "orthoplex"}) == TrainingConfig()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration(name):
    config = TrainingConfig.from_mapping({"preset": name}, defaults={"method": "lora", "steps": 500})
    assert config.preset == name and config.steps == 500  # the defaults of the base stay, where the paper says nothing
    assert all(getattr(config, option) == value for option, value in PRESETS[name].options.items())
    assert set(PRESETS[name].instead) <= set(PRESETS[name].options)


def test_the_values_of_orthogonal_adaptation():
    config = TrainingConfig.from_mapping({"preset": "orthogonal-adaptation"})
    assert (config.method, config.basis, config.rank, config.layers) == ("orthogonal", "random", 20, "linear")
    assert (config.token_vectors, config.num_vectors, config.token_start) == ("layer-wise", 2, "rare and class word")
    assert (config.token_learning_rate, config.learning_rate, config.text_encoder) == (1e-3, 1e-5, True)
    assert (config.prior_weight, config.erasure, PAPER_SCALES[config.preset][1]) == (0.0, 0.0, 0.6)


def test_options_win_over_presets_wherever_they_stand(tmp_path):
    path = tmp_path / "training.toml"
    path.write_text('rank = 8\npreset = "orthogonal-adaptation"\n')
    config = TrainingConfig.from_toml(path, overrides=["basis=slot"], defaults={"rank": 3, "layers": "attention"})
    assert (config.rank, config.basis, config.layers, config.num_vectors) == (8, "slot", "linear", 2)
    changed = TrainingConfig(seed=3, rank=5).with_overrides(["preset=blocklora", "erasure=2"])
    assert (changed.seed, changed.rank, changed.method, changed.erasure) == (3, 5, "blockwise", 2.0)


def test_a_preset_ends_with_the_next_one():
    """What is not the preset's any more stays: somebody gave it."""
    first = TrainingConfig().with_overrides(["preset=blocklora"])
    assert first.with_overrides(["preset=orthoplex"]) == TrainingConfig()
    assert first.with_overrides(["steps=9"]) == replace(first, steps=9)
    papers = TrainingConfig.from_mapping({"preset": "orthogonal-adaptation"})
    assert replace(first, slots=8).with_overrides(["preset=orthogonal-adaptation"]) == replace(papers, slots=8)


def test_a_recorded_preset_changes_nothing_that_is_recorded():
    config = replace(TrainingConfig(rank=7), preset="orthogonal-adaptation")
    assert TrainingConfig.recorded(config.to_json()) == config


@pytest.mark.parametrize("make", [TrainingConfig.from_mapping, lambda values: TrainingConfig(**values)])
def test_an_unknown_preset_is_refused(make):
    with pytest.raises(
        ConfigurationError, match="preset is 'lora'; allowed are 'orthoplex', 'orthogonal-adaptation', 'blocklora'"
    ):
        make({"preset": "lora"})


SMALL = {"steps": 2, "batch_size": 2, "mixed_precision": "no", "erasure_prompts": 4, "prior_pictures": 0}


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return load_base(build_flux(tmp_path_factory.mktemp("flux") / "pipeline"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("orthogonal-adaptation", {"rank": 2}, marks=pytest.mark.slow),
        ("blocklora", {"slots": 2}),
    ],
)
def test_a_concept_says_its_preset(base, dataset, tmp_path, name, values):
    config = TrainingConfig.from_mapping({"preset": name, **SMALL, **values})
    output = tmp_path / "anna.safetensors"
    last_of(train(base, replace(dataset, trigger="<anna>"), config, output=output))
    assert read_manifest(output).training["preset"] == name


def test_a_base_without_cross_attention_names_the_nearest(flux, dataset):
    config = TrainingConfig.from_mapping({"preset": "orthogonal-adaptation", "rank": 2})
    with pytest.raises(
        ConfigurationError,
        match="no cross-attention layers; allowed are .*; nearest to preset 'orthogonal-adaptation' is "
        "token_vectors=shared",
    ):
        Run.of(flux, dataset, config)
    assert Run.of(flux, dataset, replace(config, token_vectors="shared")).linears


def test_papers_that_merge_with_a_strength_have_a_preset():
    assert set(PAPER_SCALES) < set(PRESETS)
