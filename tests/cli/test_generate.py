from pathlib import Path

import pytest
from PIL import Image, ImageChops

from orthoplex.cli.generate import picture_paths
from orthoplex.generation import drawing, read_recipe


@pytest.fixture
def generate(run, pico_folder):
    return lambda prompt, *arguments: run("generate", prompt, "--base", pico_folder, "--steps", 1, *arguments)


def test_file_names():
    assert picture_paths(Path("a/out.png"), 1) == [Path("a/out.png")]
    assert picture_paths(Path("a/out.png"), 2) == [Path("a/out_0.png"), Path("a/out_1.png")]


def test_one_picture_with_its_recipe(generate, concepts, tmp_path):
    output = tmp_path / "out.png"
    options = ["--concept", concepts["anna"], "--concept", f"{concepts['rex']}@0.8", "--scale", 0.5]
    settings = ["--seed", 3, "--guidance-scale", 2.5, "--negative-prompt", "night", "--mixed-precision", "bf16"]
    result = generate("<anna> and <rex>", *options, *settings, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{output}\n"
    with Image.open(output) as image:
        assert image.size == (32, 32)
    recipe = read_recipe(output)
    assert (recipe["prompt"], recipe["negative_prompt"]) == ("<anna> and <rex>", "night")
    assert (recipe["seed"], recipe["num_inference_steps"], recipe["guidance_scale"]) == (3, 1, 2.5)
    assert recipe["mixed_precision"] == "bf16"
    assert [item["name"] for item in recipe["merge"]["concepts"]] == ["anna", "rex"]


def test_several_pictures_count_their_seeds_up(generate, tmp_path):
    result = generate("a dog", "--num-images", 2, "--seed", 5, "--output", tmp_path / "out.png")
    assert result.exit_code == 0, result.stderr
    paths = [tmp_path / "out_0.png", tmp_path / "out_1.png"]
    assert result.stdout.split() == [str(path) for path in paths]
    assert [read_recipe(path)["seed"] for path in paths] == [5, 6]
    assert read_recipe(paths[0])["merge"] is None


def test_a_weighted_prompt_and_a_concept_that_is_not_named(generate, concepts, tmp_path, caplog):
    output, prompt = tmp_path / "out.png", "a (photo:1.2) of anna person"
    result = generate(prompt, "--concept", concepts["anna"], "--output", output)
    assert result.exit_code == 0, result.stderr
    assert read_recipe(output)["prompt"] == prompt
    assert caplog.messages == ["anna is loaded and not named in the prompt; write <anna>"]


def test_existing_picture_is_refused_unless_overwritten(generate, tmp_path):
    output = tmp_path / "out.png"
    output.write_text("mine")
    refused = generate("a dog", "--output", output)
    assert refused.exit_code == 2 and "exists" in refused.stderr and output.read_text() == "mine"
    assert generate("a dog", "--output", output, "--overwrite").exit_code == 0
    assert read_recipe(output)["prompt"] == "a dog"


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("<bob> at night", [], "'<bob>', which is not loaded"),
        (
            "<lora:rex:0.8:0.5>",
            [],
            "names file 'rex', and there is none of that name in the current folder; no LoRA file",
        ),
        ("<lora:rex:0.8:high>", [], "whose 'high' is not read; allowed are <lora:NAME>"),
        ("a dog", ["--negative-prompt", "<lora:rex:1>"], "only the prompt of 'orthoplex generate' reads it; pass"),
        ("<lora:rex>", ["--lora-dir", "nowhere"], "--lora-dir is nowhere; allowed are folders that are there"),
        ("a dog", ["--negative-prompt", "{a|b}"], "Error: negative_prompt holds '{a|b}', a choice in other programs;"),
        ("a dog", ["--num-images", 0], "num_images is 0"),
        ("a dog", ["--steps", 1001], "num_inference_steps is 1001; allowed are 1 to 1000"),
        ("a dog", ["--guidance-scale", "1e38"], "not finite; guidance_scale is 1e+38; allowed"),
        ("a dog", ["--mixed-precision", "fp8"], "'fp8' is not one of"),
        ("a dog", ["--scale", "nan"], "scale is nan; allowed are finite numbers"),
        ("a dog", ["--algorithm", "vote"], "merging algorithm is 'vote'; allowed are"),
        ("a dog", ["--device", "meta"], "device is 'meta', allowed are cpu"),
        ("a dog", ["--concept", "nowhere"], "nowhere.safetensors"),
        ("a dog", ["--output", "out.jpg"], "out.jpg"),
    ],
)
def test_errors_are_one_line(generate, tmp_path, monkeypatch, prompt, options, message):
    monkeypatch.chdir(tmp_path)
    result = generate(prompt, "--output", "out.png", *options)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_picture_format_is_refused_before_any_work(run, tmp_path):
    result = run("generate", "a dog", "--base", tmp_path / "not even looked at", "--output", tmp_path / "out.jpg")
    assert result.exit_code == 2 and "out.jpg: a picture with its recipe is named '*.png'" in result.stderr


def test_an_output_that_cannot_be_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for output in (tmp_path / "folder.png", tmp_path / "file" / "out.png", tmp_path / f"{'x' * 250}.png"):
        result = run("generate", "a dog", "--base", "not even looked at", "--output", output)
        assert result.exit_code == 2 and str(output) in result.stderr and "not even" not in result.stderr


def test_errors_come_before_the_progress_is_drawn(generate, tmp_path):
    result = generate("a dog", "--output", tmp_path / "out.png", "--seed", -1)
    assert (
        result.exit_code == 2
        and result.stderr.strip().startswith("Error: seed is -1")
        and "picturing" not in result.stderr
    )
    assert "picturing" in generate("a dog", "--output", tmp_path / "out.png").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--concept", "ANNA@1e30"], "not finite; strength of anna is 1e+30; allowed is what the base can follow"),
        (["--concept", "ANNA@-1e25"], "not finite; strength of anna is -1e+25; allowed"),
        (["--concept", "ANNA", "--scale", "1e30"], "not finite; scale is 1e+30; allowed"),
        (["--concept", "ANNA", "--guidance-scale", "1e38"], "not finite; guidance_scale is 1e+38; allowed"),
    ],
)
def test_a_number_that_is_too_large_is_named(generate, concepts, tmp_path, options, message):
    options = [option.replace("ANNA", str(concepts["anna"])) for option in options]
    result = generate("<anna>", "--output", tmp_path / "out.png", *options)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("Error") == 1


def test_pictures_of_earlier_batches_are_there_whatever_happens(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "BATCH_SIZE", 1)
    original, calls = drawing.finished, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(drawing, "finished", failing)
    result = generate("a dog", "--num-images", 3, "--output", tmp_path / "out.png")
    paths = [tmp_path / "out_0.png", tmp_path / "out_1.png"]
    assert result.exit_code == 130 and result.stdout.split() == [str(path) for path in paths]
    assert sorted(tmp_path.iterdir()) == paths and [read_recipe(path)["seed"] for path in paths] == [0, 1]


@pytest.mark.parametrize("options", [["--unmerged"], ["--quantise", "torchao-int8"]])
def test_a_concept_beside_the_layers_draws_nearly_the_same_picture(generate, concepts, tmp_path, options):
    named = ["<anna>", "--concept", concepts["anna"], "--output"]
    for output, added in (("folded.png", []), ("beside.png", options)):
        result = generate(*named, tmp_path / output, *added)
        assert result.exit_code == 0, result.stderr
    folded, beside = (Image.open(tmp_path / name) for name in ("folded.png", "beside.png"))
    extremes = [highest for _, highest in ImageChops.difference(folded, beside).getextrema()]
    assert max(extremes) <= 4


def test_a_quantisation_that_is_none_is_named(generate, tmp_path):
    result = generate("a dog", "--output", tmp_path / "out.png", "--quantise", "int8")
    assert result.exit_code == 2 and "bnb-8bit" in result.stderr


def test_a_denoiser_that_is_no_file_is_named(generate, tmp_path):
    result = generate("a dog", "--output", tmp_path / "out.png", "--denoiser", tmp_path / "no.gguf")
    assert result.exit_code == 2 and "is no file; allowed is a GGUF file" in result.stderr
