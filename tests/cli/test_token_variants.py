"""Tokens that have vectors of single layers, and tokens alone, from the command line."""

import pytest

from orthoplex.concepts import load_concept
from tests.cli.conftest import quick_options

SHOWN = {"layer-wise": "a vector", "keys-and-values": "a key and a value"}
"""Kind of token vectors to what a layer has of its own."""


@pytest.fixture(params=SHOWN)
def kind(request):
    return request.param


@pytest.fixture
def tokens_alone(run, pictures, pico_folder, tmp_path, kind):
    output = tmp_path / "tom.safetensors"
    options = ["--class-word", "cat", "--base", pico_folder, "--output", output, *quick_options(), "--erasure", 0]
    result = run("train", pictures, "--name", "tom", *options, "--set", f"token_vectors={kind}", "--set", "layers=none")
    assert result.exit_code == 0, result.stderr
    return output


def test_they_are_trained_inspected_and_pictured_with_others(run, concepts, tokens_alone, kind, pico_folder, tmp_path):
    assert load_concept(tokens_alone).layers == {}
    own = SHOWN[kind]
    shown = " ".join(run("inspect", tokens_alone).stdout.replace("│", " ").split())
    for text in (
        f"<tom> <tom>_1, {own} for each of 4 cross-attention layers",
        "method none",
        "layers none",
        "format 5",
    ):
        assert text in shown, shown
    picture = tmp_path / "a.png"
    named = ["--concept", concepts["anna"], "--concept", tokens_alone]
    options = ["--base", pico_folder, "--output", picture, "--steps", 1]
    result = run("generate", "<anna> person with <tom> cat", *named, *options)
    assert result.exit_code == 0, result.stderr
    assert picture.is_file()


def test_a_pipeline_folder_of_them_is_refused_before_the_merge(run, concepts, tokens_alone, pico_folder, tmp_path):
    options = ["--output", tmp_path / "merged", "--base", pico_folder, "--algorithm", "least-squares"]
    result = run("merge", concepts["anna"], tokens_alone, *options)
    assert result.exit_code == 2 and not (tmp_path / "merged").exists()
    assert "tokens <tom>, <tom>_1 have vectors of single cross-attention layers" in " ".join(result.stderr.split())
