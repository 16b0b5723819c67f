"""Experiments are read from TOML; what is not allowed is refused by name."""

import json
import re
import shutil
from pathlib import Path

import pytest

from orthoplex.benchmark import ConceptSource, Experiment, PictureSettings, Variant, load_experiment
from orthoplex.benchmark.merges import MergeSettings
from orthoplex.benchmark.runner import check_capacity, check_pictures
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.concepts import KINDS
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import DinoEncoder
from orthoplex.models import load_base
from pretraining.concept_pictures import index_rows
from pretraining.pool import folk, more, pool
from tests.tiny_vision import build_dino

SHIPPED = Path(__file__).parents[2] / "experiments"
ON_VIGNETTE = sorted({*SHIPPED.glob("*.toml")} - {SHIPPED / "real-base.toml"})
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


def test_the_example_of_the_docs_is_an_experiment(tmp_path):
    page = (SHIPPED.parent / "docs" / "evaluation.md").read_text()
    (text,) = re.findall(r"```toml\n(base = .*?)```", page, re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    experiment = load_experiment(tmp_path / "mine.toml")
    assert [(one.name, one.algorithm, one.options) for one in experiment.variants] == [
        ("lora, ties", "ties", {"density": 0.3})
    ]
    assert len(experiment.concepts) == 12


def test_everything_is_read(tmp_path):
    experiment = load_experiment(write(tmp_path, GOOD))
    assert experiment.name == "tiny"
    assert experiment.base == "somewhere"
    assert experiment.seeds == (3, 4)
    assert experiment.concepts[1] == ConceptSource("rex", "person", "person", tmp_path / "pictures/rex")
    assert experiment.prompts["person"] == ("{trigger}", "a photo of {trigger}")
    assert experiment.pictures == PictureSettings(num_images=1)
    assert experiment.encoder == EncoderSettings(picture_size=64)
    assert experiment.variants[1] == Variant("lora mean", {"method": "lora", "steps": 5}, "mean", scale=1.5)


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


@pytest.mark.parametrize(("basis", "expected"), [("half", [0, 1]), ("identical", ["auto", "auto"])])
def test_bases_with_slots_get_them_by_place(tmp_path, basis, expected):
    experiment = load_experiment(write(tmp_path, GOOD.replace("{ rank = 2 }", f'{{ basis = "{basis}" }}')))
    slots = [experiment.training_config(experiment.variants[0], c, 0).slot for c in experiment.concepts]
    assert slots == expected


def test_a_slot_that_is_written_down_is_kept(tmp_path):
    experiment = load_experiment(write(tmp_path, GOOD.replace("{ rank = 2 }", "{ slot = 7 }")))
    assert [experiment.training_config(experiment.variants[0], c, 0).slot for c in experiment.concepts] == [7, 7]


def test_the_json_form_names_no_absolute_folder(tmp_path):
    values = load_experiment(write(tmp_path, GOOD)).to_json()
    assert values["concepts"][0]["folder"] == "anna"
    assert str(tmp_path) not in str(values)


def test_collections_come_after_the_other_concepts(tmp_path):
    pool = [{"name": name, "kind": "person", "class_word": "person", "held_out": 8} for name in ("p1", "p2")]
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "concepts.json").write_text(json.dumps(pool))
    table = '[[collections]]\nindex = "pool/concepts.json"\n'
    experiment = load_experiment(write(tmp_path, GOOD + table))
    assert [concept.name for concept in experiment.concepts] == ["anna", "rex", "p1", "p2"]
    assert experiment.concepts[2].folder == tmp_path / "pool" / "p1"
    assert experiment.to_json()["concepts"][2]["held_out"] == 8
    assert "held_out" not in experiment.to_json()["concepts"][0]
    experiment = load_experiment(write(tmp_path, GOOD + table + 'names = ["p2"]\n'))
    assert [concept.name for concept in experiment.concepts] == ["anna", "rex", "p2"]
    for entry, message in (
        ('nmaes = ["p2"]', "a collection has no option 'nmaes'; did you mean 'names'"),
        ("kinds = 5", "a collection's kinds is 5; allowed are lists of texts"),
        ('names = ["p3"]', "lists no concept of the name 'p3'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_experiment(write(tmp_path, GOOD + table + entry + "\n"))


def test_merges_are_read_and_name_who_is_measured(tmp_path):
    table = '\n[merges]\nsizes = [1, 2]\ndraws = 3\nmeasured = ["rex"]\n'
    experiment = load_experiment(write(tmp_path, GOOD + table))
    assert experiment.merges == MergeSettings(sizes=(1, 2), draws=3, measured=("rex",))
    assert [concept.name for concept in experiment.measured] == ["rex"]
    assert {size: len(groups) for size, groups in experiment.groups.items()} == {
        1: 3,
        2: 1 if len(experiment.concepts) == 2 else 3,
    }
    alone = load_experiment(write(tmp_path, GOOD + '\n[merges]\nsizes = [1]\nmeasured = ["rex"]\n'))
    assert [concept.name for concept in alone.trained] == ["rex"]
    assert alone.training_config(alone.variants[0], alone.trained[0], 0).slot == 0  # anna takes none
    with pytest.raises(ConfigurationError, match="merges measure 'anya'; allowed: anna"):
        load_experiment(write(tmp_path, GOOD + table.replace("rex", "anya")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [3, 4]", "sedes = [3]", "the experiment has no option 'sedes'; did you mean 'seeds'"),
        ("seeds = [3, 4]", "seeds = []", "0 seeds"),
        ("seeds = [3, 4]", "seeds = 3", "seeds is 3; allowed are lists of whole numbers from 0"),
        ("num_images = 1", "num_image = 1", "pictures has no option 'num_image'; did you mean 'num_images'"),
        ("num_images = 1", "num_images = 0", "num_images is 0; allowed are whole numbers from 1"),
        ("num_images = 1", "num_images = 1\nguidance_scale = nan", "guidance_scale is nan; allowed are finite numbers"),
        ("resolution = 32", "resolution = 0", "resolution is 0; allowed are whole numbers from 1"),
        ("seeds = [3, 4]", "seeds = [-1]", "seeds is [-1]; allowed are lists of whole numbers from 0"),
        ("seeds = [3, 4]", f"seeds = [3, {2**63}]", f"variant 'slots': seed is {2**63}"),
        ("steps = 2", "stepz = 2", "variant 'slots': training has no option 'stepz'; did you mean 'steps'"),
        ("rank = 2", "rank = 0", "variant 'slots': rank is 0"),
        ('algorithm = "mean"', 'algorithm = "median"', "merging algorithm is 'median'; allowed are sum, mean"),
        ('name = "lora mean"', 'name = "slots"', "2 variants 'slots'"),
        ('name = "rex"', 'name = "anna"', "2 concepts 'anna'"),
        ('name = "rex"', 'name = "Rex!"', "Rex!"),
        (
            'kind = "person"\nclass_word = "person"\nfolder = "pictures/rex"',
            'kind = "person"',
            "lacks the option 'class_",
        ),
        ('kind = "person"', 'kind = "human"', "kind 'human'; allowed: person"),
        ('"a photo of {trigger}"', '"a photo of her"', "'a photo of her'; allowed: 1 or more prompts with {trigger}"),
        ('person = ["{trigger}", "a photo of {trigger}"]', "", "kind 'person' has the prompt ''"),
        ('name = "lora mean"', "", "a variant lacks the option 'name'"),
        ("base =", "base", "cannot be read"),
    ],
)
def test_errors_name_the_file_the_thing_and_what_is_allowed(tmp_path, old, new, message):
    assert_refused(tmp_path, old, new, message)


def assert_refused(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        load_experiment(write(tmp_path, GOOD.replace(old, new)))
    assert "tiny.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("resolution = 32", "sample_concepts = 5", "sample_concepts is 5; allowed are 'all', or lists of texts"),
        (
            "resolution = 32",
            'sample_concepts = "anna"',
            "sample_concepts is 'anna'; allowed are 'all', or",
        ),
        (
            "resolution = 32",
            'sample_concepts = [["anna"]]',
            "sample_concepts is [['anna']]; allowed are 'all'",
        ),
        ("resolution = 32", 'resolution = "32"', "resolution is '32'; allowed are whole numbers from 1"),
        ('base = "somewhere"', "base = 5", "base is 5; allowed are texts that are not blank"),
        ("[training]\nsteps = 2", "training = 5", "training is 5; allowed are tables"),
        ("{ rank = 2 }", "5", "variant 'slots': training is 5; allowed are tables"),
        ('name = "slots"', "name = 5", "variant 5: name is 5; allowed are texts that are not blank"),
        ('name = "slots"', 'name = " "', "variant ' ': name is ' '; allowed are texts that are not blank"),
        ("scale = 1.5", 'scale = "x"', "variant 'lora mean': scale is 'x'; allowed are finite numbers"),
        ("scale = 1.5", "scale = nan", "variant 'lora mean': scale is nan; allowed are finite numbers"),
        ("scale = 1.5", "scale = -inf", "variant 'lora mean': scale is -inf; allowed are finite numbers"),
        ("scale = 1.5", f"scale = {10**400}", "allowed are finite numbers"),
        ("scale = 1.5", "scale = true", "variant 'lora mean': scale is True; allowed are finite numbers"),
        ('algorithm = "mean"', "algorithm = []", "variant 'lora mean': algorithm is []; allowed are texts"),
        (
            '["{trigger}", "a photo of {trigger}"]',
            "5",
            "prompts is {'person': 5}; allowed are tables of lists of",
        ),
        ('["{trigger}", "a photo of {trigger}"]', "[5]", "prompts is {'person': [5]}; allowed are tables of lists of"),
        (
            '["{trigger}", "a photo of {trigger}"]',
            '"{trigger}"',
            "prompts is {'person': '{trigger}'}; allowed are",
        ),
        ("num_images = 1", "num_images = true", "num_images is True; allowed are whole numbers from 1"),
        ("num_images = 1", "guidance_scale = -1", "guidance_scale is -1; allowed are finite numbers from 0"),
        ("num_images = 1", "negative_prompt = 5", "negative_prompt is 5; allowed are texts"),
        ("num_images = 1", f"seed = {2**63}", f"seed is {2**63}; allowed are whole numbers from 0 to 2^63 - 1"),
        ("picture_size = 64", 'picture_size = "x"', "encoder picture_size is 'x'; allowed are whole numbers from 1"),
        ("picture_size = 64", "layer = [5]", "encoder layer is [5]; allowed are texts"),
        ('name = "anna"', "name = 5", "concept 5: name is 5; allowed are texts"),
        ('folder = "pictures/anna"', "folder = 5", "a concept's folder is 5; allowed are texts that are not blank"),
        ("steps = 2", "seed = 2", "training has the key 'seed'; allowed: the experiment's list 'seeds'"),
        ("rank = 2", "seed = 2", "variant 'slots': training has the key 'seed'; allowed: the experiment's list"),
    ],
)
def test_values_of_the_wrong_type_are_refused(tmp_path, old, new, message):
    assert_refused(tmp_path, old, new, message)


@pytest.mark.parametrize("key", ["pictures", "encoder", "variants", "concepts"])
@pytest.mark.parametrize("value", ["5", "[1]"])
def test_tables_of_the_wrong_type_are_refused(tmp_path, key, value):
    with pytest.raises(ConfigurationError, match=rf"{key} is {re.escape(value)}; allowed are (lists of )?tables"):
        load_experiment(write(tmp_path, f"{key} = {value}"))


def test_a_class_word_is_a_text(tmp_path):
    text = GOOD.replace('class_word = "person"\nfolder = "pictures/rex"', 'class_word = 5\nfolder = "pictures/rex"')
    with pytest.raises(ConfigurationError, match="concept 'rex': class_word is 5; allowed are texts that are not"):
        load_experiment(write(tmp_path, text))


def test_numbers_are_kept_as_written(tmp_path):
    """Names in the work folder hold them: 4 and 4.0 are not the same there."""
    text = GOOD.replace("num_images = 1", "guidance_scale = 4").replace("scale = 1.5", "scale = 1")
    experiment = load_experiment(write(tmp_path, text))
    assert type(experiment.pictures.guidance_scale) is int
    assert type(experiment.variants[1].scale) is int


@pytest.fixture(scope="module")
def with_pool(tmp_path_factory):
    """A folder for experiments, beside which lie the indices of the held-out pool, but no picture."""
    root = tmp_path_factory.mktemp("shipped")
    own = [{"name": kind, "kind": kind, "class_word": kind} for kind in KINDS]
    made = {"work/pool": pool, "work/pool/more": more, "work/pool/folk": folk}
    pools = {folder: index_rows(samples()) for folder, samples in made.items()}
    for folder, rows in {**pools, "experiments/pictures": own}.items():
        (root / folder).mkdir(parents=True)
        (root / folder / "concepts.json").write_text(json.dumps(rows))
    shutil.copytree(SHIPPED / "common", root / "experiments" / "common")
    return root / "experiments"


@pytest.mark.parametrize("path", ON_VIGNETTE, ids=lambda path: path.stem)
def test_the_shipped_experiments_are_read_and_fit_their_base(path, with_pool):
    experiment = load_experiment(Path(shutil.copy(path, with_pool)))
    assert experiment.name == path.stem
    check_capacity(experiment, load_base(experiment.base))
    check_pictures(experiment, load_base(experiment.base))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_no_merge_is_fitted_on_the_prompts_that_it_is_measured_on(path, with_pool):
    experiment = load_experiment(Path(shutil.copy(path, with_pool)))
    for kind, prompts in experiment.prompts.items():
        fitted = KINDS[kind].own_prompts("{trigger}")
        assert not {*prompts} & {*fitted}


def test_measured_prompts_are_those_of_the_measured_kinds(tmp_path):
    text = GOOD.replace("[prompts]", '[prompts]\nscene = ["{trigger} by a lake"]')
    assert load_experiment(write(tmp_path, text)).measured_prompts == {"person": ("{trigger}", "a photo of {trigger}")}


def test_make_bench_runs_all_of_them():
    line = next(
        line for line in (SHIPPED.parent / "Makefile").read_text().splitlines() if line.startswith("EXPERIMENTS")
    )
    assert sorted(line.partition(":=")[2].split()) == sorted(path.stem for path in ON_VIGNETTE)


def test_published_figures_have_one_number_a_column(tmp_path):
    table = '\n[published]\nsource = "a paper"\ncolumns = ["single", "merged"]\nrows = { "theirs" = [0.5, 0.25] }\n'
    published = load_experiment(write(tmp_path, GOOD + table)).published
    assert published is not None and published.rows["theirs"] == (0.5, 0.25)
    with pytest.raises(ConfigurationError, match="published: 'theirs' has 1 numbers; allowed: 2, one a column"):
        load_experiment(write(tmp_path, GOOD + table.replace("0.5, 0.25", "0.5")))
    with pytest.raises(ConfigurationError, match="published: rows is"):
        load_experiment(write(tmp_path, GOOD + table.replace("0.25", "'a lot'")))


def test_what_is_shown_of_a_concept_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match="parts is 'faces'; allowed are 'both', 'tokens', 'weights'"):
        load_experiment(write(tmp_path, GOOD + '\n[[variants]]\nname = "x"\nparts = "faces"\n'))
    with pytest.raises(ConfigurationError, match="crosstalk is 1; allowed are true, false"):
        load_experiment(write(tmp_path, "crosstalk = 1\n" + GOOD))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nothing.toml cannot be read"):
        load_experiment(tmp_path / "nothing.toml")


def test_no_variants_are_refused():
    source = ConceptSource("anna", "person", "person", Path("anna"))
    with pytest.raises(ConfigurationError, match="0 variants"):
        Experiment(
            "e", "b", 32, (0,), (source,), {}, {"person": ("{trigger}",)}, PictureSettings(), EncoderSettings(), ()
        )


def test_what_could_never_be_finished_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigurationError, match="has the seed 3 2 times; allowed: once"):
        load_experiment(write(tmp_path, GOOD.replace("seeds = [3, 4]", "seeds = [3, 3]")))
    blocks = '\n[[variants]]\nname = "blocks"\ntraining = { method = "blockwise", slots = 1 }\n'
    with pytest.raises(ConfigurationError, match="variant 'blocks' has slots = 1, so many blocks, for [0-9]+ concepts"):
        load_experiment(write(tmp_path, GOOD + blocks))
    with pytest.raises(ConfigurationError, match="merges draws is 1001; allowed are whole numbers from 1 to 1000"):
        load_experiment(write(tmp_path, GOOD + "\n[merges]\ndraws = 1001\n"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_experiment(write(tmp_path, "x = " + "[" * 3000 + "]" * 3000))
    assert load_experiment(write(tmp_path, "\ufeff" + GOOD)).name == "tiny"


def test_an_encoder_has_the_options_of_its_kind():
    usual = EncoderSettings()
    assert (usual.kind, usual.layer, usual.picture_size, usual.grid, usual.model) == (
        "mobilenet", "bottleneck", 128, 1, None,
    )  # fmt: skip
    clip = EncoderSettings(kind="clip", model="models/clip")
    assert (clip.layer, clip.picture_size, clip.grid, clip.model) == (None, None, None, "models/clip")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "vgg"}, "encoder kind is 'vgg'; allowed are 'mobilenet', 'clip', 'dino', 'face'"),
        ({"kind": ["clip"]}, r"encoder kind is \['clip'\]; allowed are 'mobilenet'"),
        ({"kind": "clip", "layer": "stem"}, "layer is 'stem', which the kind 'clip' does not have; allowed: model"),
        ({"kind": "face", "grid": 2}, "encoder grid is 2, which the kind 'face' does not have; allowed: model"),
        ({"model": "x"}, "model is 'x', which the kind 'mobilenet' does not have; allowed: layer, picture_size, grid"),
        ({"kind": "dino", "model": " "}, "encoder model is ' '; allowed are texts that are not blank"),
        ({"kind": "dino", "model": 5}, "encoder model is 5; allowed are texts"),
    ],
)
def test_an_encoder_of_a_wrong_kind_is_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        EncoderSettings(**values)


def test_kinds_build_their_encoders(tmp_path):
    folder = build_dino(tmp_path / "tiny")
    encoder = EncoderSettings(kind="dino", model=str(folder)).build()
    assert isinstance(encoder, DinoEncoder) and encoder.name.startswith("dino-tiny-")


def test_a_result_holds_no_folder_of_a_model(tmp_path, sources):
    folder = build_dino(tmp_path / "tiny")
    settings = EncoderSettings(kind="dino", model=str(folder))
    prompts = {"person": ("{trigger}",), "subject": ("{trigger}",)}
    experiment = Experiment(
        "e", "b", 32, (0,), sources, {}, prompts, PictureSettings(), settings, (Variant("v"),)
    )  # fmt: skip
    assert experiment.to_json()["encoder"]["model"] == "tiny"
