import json
from dataclasses import replace

import pytest
import torch

from orthoplex.activations import with_inputs
from orthoplex.concepts import save_concept
from orthoplex.models import load_base
from tests.pico import build_pico, make_concept


def test_writes_a_pipeline_folder(run, concepts, pico_folder, tmp_path):
    output = tmp_path / "merged"
    result = run("merge", concepts["anna"], f"{concepts['rex']}@0.8", "--output", output, "--base", pico_folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{output}: 2 concepts merged by least-squares in ")
    assert (output / "model_index.json").is_file()
    recipe = json.loads((output / "recipe.json").read_text())
    assert {item["name"]: item["strength"] for item in recipe["concepts"]} == {"anna": 1.0, "rex": 0.8}
    assert {"<anna>", "<rex>"} <= set(load_base(output).tokens)


def test_scale_and_algorithm_are_in_the_recipe(run, concepts, pico_folder, tmp_path):
    output = tmp_path / "merged"
    options = ["--output", output, "--base", pico_folder, "--scale", 0.6, "--algorithm", "mean"]
    result = run("merge", concepts["anna"], *options)
    assert result.exit_code == 0 and "1 concept merged by mean" in result.stdout
    recipe = json.loads((output / "recipe.json").read_text())
    assert (recipe["scale"], recipe["algorithm"]) == (0.6, "mean")


def test_options_of_an_algorithm(run, concepts, pico_folder, tmp_path):
    shared = ["--base", pico_folder, "--algorithm"]
    result = run("merge", *concepts.values(), "--output", tmp_path / "a", *shared, "ties", "--option", "density=0.5")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "a" / "recipe.json").read_text())["options"] == {"density": 0.5}
    result = run("merge", *concepts.values(), "--output", tmp_path / "b", *shared, "least-squares")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "b" / "recipe.json").read_text())["inputs"]


def test_concepts_that_keep_their_inputs_are_merged_by_least_squares_unasked(run, pico, pico_folder, tmp_path):
    files = []
    for seed, name in enumerate(("anna", "rex")):
        concept = with_inputs(pico, make_concept(pico, name, selection="cross-attention-kv", seed=seed))
        files.append(tmp_path / f"{name}.safetensors")
        save_concept(concept, files[-1])
    for algorithm, expected in ((None, "least-squares"), ("sum", "sum"), ("auto", "least-squares")):
        asked = [] if algorithm is None else ["--algorithm", algorithm]
        output = tmp_path / f"merged-{algorithm}"
        result = run("merge", *files, "--output", output, "--base", pico_folder, *asked)
        assert result.exit_code == 0 and f"2 concepts merged by {expected} in" in result.stdout, result.stderr
        assert json.loads((output / "recipe.json").read_text())["algorithm"] == expected


def test_existing_folder_is_refused_unless_overwritten(run, concepts, pico_folder, tmp_path):
    output = tmp_path / "merged"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    arguments = ["merge", concepts["anna"], "--output", output, "--base", pico_folder]
    refused = run(*arguments)
    assert refused.exit_code == 2 and "exists" in refused.stderr and (output / "mine.txt").is_file()
    refused = run(*arguments, "--overwrite")
    assert refused.exit_code == 2 and "only a pipeline folder" in refused.stderr and (output / "mine.txt").is_file()
    (output / "mine.txt").unlink()
    assert run(*arguments).exit_code == 0
    for mine in ("mine.txt", "unet/mine.png"):
        (output / mine).write_text("old")
        refused = run(*arguments, "--overwrite")
        assert refused.exit_code == 2 and f"holds {mine}, which is no part of its pipeline" in refused.stderr
        (output / mine).unlink()
    (output / "recipe.json").write_text("old")
    assert run(*arguments, "--overwrite").exit_code == 0
    assert (output / "model_index.json").is_file() and (output / "recipe.json").read_text() != "old"


@pytest.mark.parametrize(
    ("concept", "options", "message"),
    [
        ("{anna}@loud", [], "strength of"),
        ("nowhere", [], "nowhere.safetensors"),
        ("{anna}", ["--algorithm", "vote"], "merging algorithm is 'vote'; allowed are"),
        ("{anna}", ["--algorithm", "sum", "--option", "density=1"], "algorithm 'sum' has no option 'density'"),
        ("{anna}", ["--option", "density=1"], "option 'density' is given for algorithm 'auto', which chooses its own"),
        ("{anna}", ["--option", "a=1", "--option", "a=2"], "option 'a' is given twice"),
        ("{anna}", ["--option", "density"], "option is 'density'; allowed is KEY=NUMBER"),
        ("{anna}", ["--base", "nowhere"], "base 'nowhere'"),
        ("{anna}", ["--base", ""], "base ''"),
        ("{anna}@1e39", [], "numbers of the weight are no longer finite; strengths are anna@1e+39, scale 1"),
        ("{anna}", ["--scale", "1e39"], "strengths are anna@1, scale 1e+39"),
        ("@0.5", [], "concept is '@0.5'"),
        pytest.param("x" * 300, [], "File name too long", id="long"),
    ],
)
def test_errors_are_one_line(run, concepts, pico_folder, tmp_path, concept, options, message):
    text = concept.format(anna=concepts["anna"])
    result = run("merge", text, "--output", tmp_path / "merged", "--base", pico_folder, *options)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "merged").exists()


def test_a_concept_twice_is_refused(run, concepts, pico_folder, tmp_path):
    result = run("merge", concepts["anna"], concepts["anna"], "--output", tmp_path / "m", "--base", pico_folder)
    assert result.exit_code == 2 and "anna" in result.stderr


def test_another_base_is_refused(run, concepts, tmp_path):
    other = build_pico(tmp_path / "other", seed=1)
    result = run("merge", concepts["anna"], "--output", tmp_path / "merged", "--base", other)
    assert (
        result.exit_code == 2 and "was trained on base" in result.stderr and "unrelated to its weights" in result.stderr
    )


def test_an_output_that_cannot_be_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "merged", tmp_path / ("x" * 250)):
        options = ["--output", output, "--base", "not even looked at", "--overwrite"]
        result = run("merge", "not even looked at", *options)
        assert result.exit_code == 2 and str(output) in result.stderr and "not even" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_type_of_the_weights_may_be_another(run, concepts, pico_folder, tmp_path):
    arguments = ["merge", concepts["anna"], "--base", pico_folder, "--output"]
    assert run(*arguments, tmp_path / "half", "--dtype", "float16").exit_code == 0
    assert load_base(tmp_path / "half").stored_dtypes == dict.fromkeys(("unet", "text_encoder", "vae"), torch.float16)
    assert run(*arguments, tmp_path / "usual").exit_code == 0
    assert set(load_base(tmp_path / "usual").stored_dtypes.values()) == {torch.float32}
    refused = run(*arguments, tmp_path / "eighth", "--dtype", "float8")
    assert refused.exit_code == 2 and "float16" in refused.stderr and not (tmp_path / "eighth").exists()


@pytest.mark.parametrize(("scale", "is_said"), [(1.0, True), (0.6, False)])
def test_the_strength_of_the_paper_is_said(run, pico, tmp_path, scale, is_said):
    concept = make_concept(pico, "anna")
    manifest = replace(concept.manifest, training={"preset": "orthogonal-adaptation"})
    save_concept(replace(concept, manifest=manifest), tmp_path / "anna.safetensors")
    result = run(
        "merge", f"{tmp_path / 'anna.safetensors'}@0.5", "--output", tmp_path / "x.safetensors", "--scale", scale
    )
    assert result.exit_code == 0, result.stderr
    assert ("merges with --scale 0.6; this merge has 1" in result.stderr) == is_said
