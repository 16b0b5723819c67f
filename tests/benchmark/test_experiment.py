"""Experiments are read from TOML; what is not allowed is refused by name."""

from pathlib import Path

import pytest

from orthoplex.benchmark import ConceptSource, Experiment, PictureSettings, Variant, load_experiment
from orthoplex.benchmark.experiment import EncoderSettings
from orthoplex.errors import ConfigurationError

GOOD = """
base = "somewhere"
resolution = 32
seeds = [3, 4]

[training]
steps = 2

[prompts]
person = ["{trigger}", "a photo of {trigger}"]

[pictures]
num_images = 1

[encoder]
picture_size = 64

[[concepts]]
name = "anna"
kind = "person"
class_word = "person"
folder = "pictures/anna"

[[concepts]]
name = "rex"
kind = "person"
class_word = "person"
folder = "pictures/rex"

[[variants]]
name = "slots"
training = { rank = 2 }

[[variants]]
name = "lora mean"
training = { method = "lora", steps = 5 }
algorithm = "mean"
scale = 1.5
"""


def write(tmp_path, text):
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


def test_everything_is_read(tmp_path):
    experiment = load_experiment(write(tmp_path, GOOD))
    assert experiment.name == "tiny"
    assert experiment.base == "somewhere"
    assert experiment.seeds == (3, 4)
    assert experiment.concepts[1] == ConceptSource("rex", "person", "person", tmp_path / "pictures/rex")
    assert experiment.prompts["person"] == ("{trigger}", "a photo of {trigger}")
    assert experiment.pictures == PictureSettings(num_images=1)
    assert experiment.encoder == EncoderSettings(picture_size=64)
    assert experiment.variants[1] == Variant("lora mean", {"method": "lora", "steps": 5}, "mean", 1.5)


def test_training_options_are_the_experiments_then_the_variants(tmp_path):
    experiment = load_experiment(write(tmp_path, GOOD))
    anna, rex = experiment.concepts
    slots, mean = experiment.variants
    config = experiment.training_config(slots, rex, 4)
    assert (config.steps, config.rank, config.seed, config.sample_every) == (2, 2, 4, 0)
    assert experiment.training_config(mean, rex, 4).steps == 5
    # every concept gets a slot of its own, its place in the list; lora has none
    assert [experiment.training_config(slots, concept, 3).slot for concept in (anna, rex)] == [0, 1]
    assert experiment.training_config(mean, rex, 3).slot == "auto"


def test_a_slot_that_is_written_down_is_kept(tmp_path):
    experiment = load_experiment(write(tmp_path, GOOD.replace("{ rank = 2 }", "{ slot = 7 }")))
    assert [experiment.training_config(experiment.variants[0], c, 0).slot for c in experiment.concepts] == [7, 7]


def test_the_json_form_names_no_absolute_folder(tmp_path):
    values = load_experiment(write(tmp_path, GOOD)).to_json()
    assert values["concepts"][0]["folder"] == "anna"
    assert str(tmp_path) not in str(values)


def test_concepts_of_a_kind(tmp_path):
    experiment = load_experiment(write(tmp_path, GOOD))
    assert [concept.name for concept in experiment.of_kind("person")] == ["anna", "rex"]
    assert experiment.of_kind("style") == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [3, 4]", "sedes = [3]", "key 'sedes'; did you mean 'seeds'"),
        ("seeds = [3, 4]", "seeds = []", "0 seeds"),
        ("seeds = [3, 4]", "seeds = 3", "seeds is 3; allowed: a list"),
        ("num_images = 1", "num_image = 1", "pictures has the key 'num_image'; did you mean 'num_images'"),
        ("num_images = 1", "num_images = 0", "num_images is 0; allowed: whole numbers from 1"),
        ("num_images = 1", "num_images = 1\nguidance_scale = nan", "guidance_scale is nan; allowed: finite numbers"),
        ("resolution = 32", "resolution = 0", "resolution is 0; allowed: whole numbers from 1"),
        ("seeds = [3, 4]", "seeds = [-1]", "a seed is -1; allowed: whole numbers from 0"),
        ("steps = 2", "stepz = 2", "variant 'slots': 'stepz' is no training option; did you mean 'steps'"),
        ("rank = 2", "rank = 0", "variant 'slots': rank is 0"),
        ('algorithm = "mean"', 'algorithm = "median"', "'median'; allowed: sum, mean"),
        ('name = "lora mean"', 'name = "slots"', "2 variants 'slots'"),
        ('name = "rex"', 'name = "anna"', "2 concepts 'anna'"),
        ('name = "rex"', 'name = "Rex!"', "Rex!"),
        ('kind = "person"\nclass_word = "person"\nfolder = "pictures/rex"', 'kind = "person"', "lacks the key 'class_"),
        ('kind = "person"', 'kind = "human"', "kind 'human'; allowed: person"),
        ('"a photo of {trigger}"', '"a photo of her"', "'a photo of her'; allowed: 1 or more prompts with {trigger}"),
        ('person = ["{trigger}", "a photo of {trigger}"]', "", "kind 'person' has the prompt ''"),
        ('name = "lora mean"', "", "a variant is"),
        ("base =", "base", "cannot be read"),
    ],
)
def test_errors_name_the_file_the_thing_and_what_is_allowed(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ConfigurationError, match=message.replace("{", r"\{")) as caught:
        load_experiment(write(tmp_path, GOOD.replace(old, new)))
    assert "tiny.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nothing.toml cannot be read"):
        load_experiment(tmp_path / "nothing.toml")


def test_no_variants_are_refused():
    source = ConceptSource("anna", "person", "person", Path("anna"))
    with pytest.raises(ConfigurationError, match="0 variants"):
        Experiment(
            "e", "b", 32, (0,), (source,), {}, {"person": ("{trigger}",)}, PictureSettings(), EncoderSettings(), ()
        )
