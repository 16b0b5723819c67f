from dataclasses import replace

import pytest
import torch

from orthoplex.concepts import load_concept, save_concept


def test_writes_a_concept_that_is_silent_elsewhere(run, concepts, pico_folder, tmp_path):
    output = tmp_path / "quiet.safetensors"
    result = run("silence", concepts["anna"], "--output", output, "--base", pico_folder, "--weight", 20)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{output} in ")
    before, after = load_concept(concepts["anna"]), load_concept(output)
    assert after.manifest.training["erasure"] == 20.0 and after.manifest.trigger == before.manifest.trigger
    assert all(torch.equal(part.up, before.layers[layer].up) for layer, part in after.layers.items())
    assert not any(torch.equal(part.down, before.layers[layer].down) for layer, part in after.layers.items())
    assert (before.manifest.slot, after.manifest.slot) == (0, None)
    without = tmp_path / "without.safetensors"
    save_concept(replace(before, inputs=None), without)
    again = tmp_path / "again.safetensors"
    assert run("silence", without, "--output", again, "--base", pico_folder, "--weight", 20).exit_code == 0
    assert torch.equal(load_concept(again).inputs, before.inputs)


def test_an_existing_file_is_refused_unless_overwritten(run, concepts, pico_folder, tmp_path):
    output = tmp_path / "quiet.safetensors"
    output.write_text("mine")
    result = run("silence", concepts["anna"], "--output", output, "--base", pico_folder)
    assert result.exit_code == 2 and "--overwrite" in result.stderr and output.read_text() == "mine"
    assert run("silence", concepts["anna"], "--output", output, "--base", pico_folder, "--overwrite").exit_code == 0
    assert load_concept(output).name == "anna"


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("quiet.txt", (), "end in .safetensors"),
        ("quiet.safetensors", ("--weight", "-1"), "--weight is -1.0; allowed are finite numbers above 0"),
        ("quiet.safetensors", ("--base", "vignette"), "vignette"),
    ],
)
def test_what_is_not_allowed_is_told(run, concepts, pico_folder, tmp_path, output, options, message):
    result = run("silence", concepts["anna"], "--output", tmp_path / output, "--base", pico_folder, *options)
    assert result.exit_code == 2 and message in result.stderr and not (tmp_path / output).exists()
