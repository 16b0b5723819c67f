import json
import signal
from importlib import import_module

import pytest
from PIL import Image

from orthoplex import vignette
from orthoplex.concepts import read_manifest
from orthoplex.training import TrainingConfig, checkpoint_path, log_path, loop, samples_folder
from orthoplex.training.continuation import is_finished
from tests.cli.conftest import quick_options


@pytest.fixture
def train(run, pictures, pico_folder):
    """``orthoplex train`` on the pico base with quick options; later arguments win."""

    def call(*arguments):
        named = ["--name", "anna", "--class-word", "person", "--base", pico_folder]
        return run("train", pictures, *named, *quick_options(), *arguments)

    return call


def test_writes_a_concept_file(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    result = train("--output", output, "--set", "sample_every=2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{output} in ")
    assert "3 pictures (32×32), captions: 3 from templates\n" in result.stderr
    assert "Training <anna> person (person) on 3 pictures" in result.stderr
    assert (read_manifest(output).name, read_manifest(output).kind) == ("anna", "person")
    assert log_path(output).is_file() and len(list(samples_folder(output).iterdir())) == 2


def test_it_says_at_the_opening_what_is_done_with_the_pictures(run, pico_folder, tmp_path):
    folder = tmp_path / "10_anna"
    folder.mkdir()
    frames = [Image.new("RGB", (20, 32), color) for color in ("red", "blue")]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    options = ["--name", "anna", "--class-word", "person", "--base", pico_folder, "--set", "steps=1"]
    result = run("train", tmp_path, *options, "--output", tmp_path / "anna.safetensors", *quick_options())
    assert result.exit_code == 0, result.stderr
    for line in (
        "10_anna/a.gif: of several frames or pages the first is read",
        "folder '10_anna': repeats are not used; each picture counts once",
        "10_anna/a.gif (20×32): smaller than 32×32, and enlarged; details are lost",
    ):
        assert f"Warning: {line}\n" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "holds a small generated picture; --no-thumbnail leaves it out"),
        (("--no-thumbnail",), "holds no picture"),
    ],
)
def test_it_says_what_the_file_holds(run, train, tmp_path, options, words):
    output = tmp_path / "anna.safetensors"
    result = train("--output", output, "--set", "steps=1", *options)
    assert result.exit_code == 0 and result.stdout.endswith(f" s; {words}\n")
    assert words.partition(";")[0] in run("inspect", output).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[training]\nsteps = 2\n",
            "[training] is a table; the options stand at the top level, without one: steps = …",
        ),
        ("[[training]]\nrank = 2\n", "[training] is a table; the options stand at the top level, without one: rank"),
        ("[steps]\n", "[steps] is a table"),
        ("steps = 2\nrank = -3\n", "rank is -3; allowed are whole numbers from 1 and 'proportional'"),
        ("rank = 0\n", "rank is 0; allowed are whole numbers from 1 and 'proportional'"),
    ],
)
def test_a_configuration_that_cannot_be_is_named_with_the_cure(train, tmp_path, text, message):
    config = tmp_path / "config.toml"
    config.write_text(text)
    result = train("--output", tmp_path / "anna.safetensors", "--config", config)
    assert result.exit_code == 2 and f"configuration {config}: {message}" in result.stderr


def test_default_output_is_named_after_the_concept(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train().exit_code == 0
    assert (tmp_path / "anna.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--class-word", "dog"], "subject"),
        (["--class-word", "woman"], "person"),
        (["--class-word", "dog", "--kind", "other"], "other"),
    ],
)
def test_kind(train, tmp_path, options, kind):
    output = tmp_path / "anna.safetensors"
    assert train("--output", output, *options).exit_code == 0
    assert read_manifest(output).kind == kind


def test_flags_override_the_file_and_set_overrides_flags(train, tmp_path):
    config, output = tmp_path / "config.toml", tmp_path / "anna.safetensors"
    config.write_text('method = "lora"\nseed = 5\nerasure = 0.5\nweight_decay = 0.25\n')
    flags = ["--config", config, "--seed", 6, "--erasure", 0.25, "--rank", 2, "--learning-rate", 0.001]
    result = train(
        "--output", output, *flags, "--set", "seed=7", "--set", "erasure_prompts=4", "--set", "prior_pictures=0"
    )
    assert result.exit_code == 0, result.stderr
    training = read_manifest(output).training
    assert (training["method"], training["weight_decay"]) == ("lora", 0.25)
    assert (training["erasure"], training["rank"], training["learning_rate"]) == (0.25, 2, 0.001)
    assert training["seed"] == 7


def test_the_defaults_of_the_bases_family_stand_under_all(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    assert train("--output", output, "--set", "prior_pictures=0").exit_code == 0
    assert read_manifest(output).training["guidance_scale"] == 7.5
    result = train("--output", output, "--overwrite", "--set", "prior_pictures=0", "--set", "guidance_scale=2")
    assert result.exit_code == 0 and read_manifest(output).training["guidance_scale"] == 2.0


def test_basis_slot_and_method_flags(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    result = train(
        "--output",
        output,
        "--method",
        "orthogonal",
        "--basis",
        "slot",
        "--slot",
        3,
        "--rank",
        "proportional",
        "--erasure",
        0,
    )
    assert result.exit_code == 0, result.stderr
    assert read_manifest(output).slot == 3


def test_without_a_configuration_it_is_that_of_the_shipped_concepts(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    assert train("--output", output).exit_code == 0
    told, manifest = TrainingConfig.from_toml(vignette.training_file("orthogonal")), read_manifest(output)
    assert (manifest.training["erasure"], manifest.training["erasure_form"]) == (told.erasure, "closed-form")
    assert all("attn2.to_k" in layer or "attn2.to_v" in layer for layer in manifest.layers)


def test_tokens_alone_have_nothing_to_silence(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    result = train("--output", output, "--set", "layers=none")
    assert result.exit_code == 0, result.stderr
    assert read_manifest(output).layers == {}


def test_existing_output_is_refused(train, concepts):
    before = concepts["anna"].read_bytes()
    result = train("--output", concepts["anna"])
    assert result.exit_code == 2
    assert "exists; give another name, or --overwrite" in result.stderr and "Traceback" not in result.stderr
    assert concepts["anna"].read_bytes() == before


def test_overwrite(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    output.write_text("old")
    assert train("--output", output, "--overwrite").exit_code == 0
    assert read_manifest(output).name == "anna"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "stepz=1"], "training has no option 'stepz'; did you mean 'steps'"),
        (["--name", "Anna"], "concept name 'Anna' is not allowed"),
        (["--kind", "beast"], "kind is 'beast'; allowed are person"),
        (["--base", "nowhere"], "base 'nowhere'"),
        (["--slot", "99"], "slot"),
        (["--set", "down_scale=-1"], "down_scale is -1.0"),
        (
            ["--set", "sample_every=1", "--set", "num_inference_steps=5000"],
            "num_inference_steps is 5000; allowed are 1 to",
        ),
        (["--class-word", "<bob>"], "class_word is '<bob>'"),
        (["--output", "anna.bin"], "allowed are names that end in .safetensors"),
    ],
)
def test_errors_are_one_line(train, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    result = train(*options)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr and "preparing" not in result.stderr
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


def test_missing_folder(run, tmp_path, pico_folder):
    options = ["--name", "x", "--class-word", "dog", "--base", pico_folder, "--output", tmp_path / "x.safetensors"]
    result = run("train", tmp_path / "nowhere", *options)
    assert result.exit_code == 2 and "does not exist" in result.stderr


@pytest.mark.parametrize(
    ("module", "function"), [("orthoplex.training.loop", "_learning_rate_factor"), ("orthoplex.training", "log_path")]
)
def test_ctrl_c_then_resume(train, tmp_path, monkeypatch, module, function):
    """Whoever is at work when Ctrl-C comes, the loop or the drawing, a checkpoint is kept."""
    output = tmp_path / "anna.safetensors"

    def interrupting(*arguments):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(import_module(module), function, interrupting)
        stopped = train("--output", output)
    assert stopped.exit_code == 130
    assert "Stopped after step 0 of 2; --resume continues" in stopped.stderr
    assert checkpoint_path(output).is_file() and not output.exists()
    resumed = train("--output", output, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert output.is_file() and is_finished(output)
    steps = [json.loads(line)["step"] for line in log_path(output).read_text().splitlines()]
    assert steps[-2:] == [1, 2]


def test_a_finished_run_is_lengthened(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    result = train("--output", output)
    assert "to train it further, repeat the command with --resume and more --steps" in result.stderr
    nothing = train("--output", output, "--resume")
    assert nothing.exit_code == 2 and "is finished, at step 2 of 2; more steps (--steps) lengthen it" in nothing.stderr
    assert train("--output", output, "--resume", "--set", "steps=3", "--no-checkpoint").exit_code == 0
    assert read_manifest(output).lengthened_from == (2,) and not checkpoint_path(output).exists()


def test_a_loss_that_is_not_finite_is_one_line(train, tmp_path, monkeypatch):
    original = loop._denoising_loss
    monkeypatch.setattr(loop, "_denoising_loss", lambda *arguments: original(*arguments) * float("nan"))
    result = train("--output", tmp_path / "anna.safetensors")
    assert result.exit_code == 2 and "step 1 of 'anna': the loss is nan" in result.stderr


def test_a_checkpoint_is_kept_unless_overwritten(train, tmp_path, monkeypatch):
    output = tmp_path / "anna.safetensors"

    def interrupting(*arguments):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_learning_rate_factor", interrupting)
        train("--output", output)
    refused = train("--output", output)
    assert refused.exit_code == 2 and "(--resume) continues it, overwrite (--overwrite) begins anew" in refused.stderr
    assert checkpoint_path(output).is_file()
    assert train("--output", output, "--overwrite").exit_code == 0 and is_finished(output)


def test_ctrl_c_before_there_is_anything_to_keep(train, tmp_path, monkeypatch):
    def interrupting(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "FileLock", interrupting)
    stopped = train("--output", tmp_path / "anna.safetensors")
    assert stopped.exit_code == 130 and "Stopped after step 0 of 2; nothing is kept" in stopped.stderr


def test_brackets_in_names_of_folders_are_no_markup(train, tmp_path):
    output = tmp_path / "[" / "bold]" / "anna.safetensors"
    result = train("--output", output)
    assert result.exit_code == 0 and "/bold]/anna" in result.stderr.replace("\n", ""), result.exception


def test_what_was_to_replace_a_file_goes_on_after_ctrl_c(train, tmp_path, monkeypatch):
    output = tmp_path / "anna.safetensors"
    output.write_bytes(b"an older one")

    def interrupting(*arguments):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_learning_rate_factor", interrupting)
        train("--output", output, "--overwrite")
    assert checkpoint_path(output).is_file() and output.read_bytes() == b"an older one"
    resumed = train("--output", output, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert output.stat().st_size > 1000


@pytest.mark.slow
def test_a_quantised_base(train, tmp_path):
    result = train("--output", tmp_path / "anna.safetensors", "--quantise", "bnb-4bit")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "anna.safetensors").is_file()


def test_a_rare_word_a_cache_and_event_files_from_the_command_line(run, train, pico_folder, tmp_path):
    output, cache = tmp_path / "anna.safetensors", tmp_path / "cache"
    options = ("--set", "token_vectors=rare word", "--report-to", "tensorboard", "--cache-dir", cache)
    result = train("--output", output, *options)
    assert result.exit_code == 0, result.stderr
    assert list(cache.iterdir()) and list((tmp_path / "anna.tensorboard").iterdir())
    word = read_manifest(output).rare_word
    named = ("--concept", output, "--base", pico_folder, "--steps", 1, "--output", tmp_path / "a.png")
    result = run("generate", "a photo of <anna> person", *named)
    assert result.exit_code == 0, result.stderr
    assert "is not in the prompt" not in result.stderr
    result = run("generate", "a photo of person", *named, "--overwrite")
    assert f"anna is loaded and its trigger is not in the prompt; write {word} person" in result.stderr


def test_masks_buckets_and_class_pictures_are_counted(train, pictures, tmp_path):
    (pictures / "masks").mkdir()
    first = sorted(pictures.glob("*.png"))[0]
    with Image.open(first) as image:
        Image.new("L", image.size, 255).save(pictures / "masks" / first.name)
    output, common = tmp_path / "anna.safetensors", ["--set", "resolution=24", "--set", "prior_pictures=1"]
    result = train("--output", output, *common, "--set", "buckets=true")
    assert result.exit_code == 0, result.stderr
    assert "1 of them with a mask, in 1 bucket\n" in result.stderr
    assert read_manifest(output).training["buckets"] is True and read_manifest(output).training["resolution"] == 24
    options = ["--class-data", pictures, "--set", "prior_weight=0.5", "--overwrite"]
    result = train("--output", output, *common, *options)
    assert result.exit_code == 0, result.stderr
    assert "1 of them with a mask, " in result.stderr and " class pictures\n" in result.stderr
    assert "Class pictures: " in result.stderr and "not read: 1 unused mask\n" in result.stderr


def test_class_pictures_are_looked_at_before_the_base_is_loaded(train, tmp_path, monkeypatch):
    monkeypatch.setattr("orthoplex.models.load_base", lambda *_, **__: pytest.fail("the base is loaded"))
    (tmp_path / "class").mkdir()
    result = train("--class-data", tmp_path / "class", "--set", "prior_weight=0.5")
    assert result.exit_code == 2 and "class holds no pictures" in result.stderr


def test_a_resolution_that_has_no_latents_is_refused(train, tmp_path):
    result = train("--output", tmp_path / "anna.safetensors", "--set", "resolution=33")
    assert result.exit_code != 0 and "resolution is 33; allowed are multiples of 4" in result.stderr


def test_options_win_over_a_preset(train, tmp_path):
    output = tmp_path / "anna.safetensors"
    result = train("--output", output, "--preset", "orthogonal-adaptation", "--rank", 2)
    assert result.exit_code == 0, result.stderr
    training = read_manifest(output).training
    assert (training["preset"], training["rank"], training["basis"]) == ("orthogonal-adaptation", 2, "random")
