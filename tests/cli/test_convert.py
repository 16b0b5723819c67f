import json

import pytest
import torch

from orthoplex.concepts import load_concept
from orthoplex.concepts.exchange import read_lora
from orthoplex.files import read_header, write_tensors
from tests.concepts.exchange.corpus import CORPUS, K, V, kohya, of


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
def test_a_concept_for_another_program(run, concepts, tmp_path, style):
    """Also of a base whose shapes no table has."""
    output = tmp_path / "anna.safetensors"
    result = run("convert", concepts["anna"], "--to", style, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert f"{len(load_concept(concepts['anna']).layers)} layers of" in result.stdout and f"to {style}" in result.stdout
    assert (tmp_path / "anna.anna.safetensors").is_file()
    prefix = {"kohya": "lora_unet_", "diffusers": "unet."}[style]
    assert all(key.startswith(prefix) for key in read_header(output).entries)
    shown = run("inspect", output)
    assert shown.exit_code == 0 and "versions of" in shown.stdout


def test_an_older_concept_in_the_format_of_today(run, concepts, tmp_path):
    output = tmp_path / "anna.safetensors"
    assert run("convert", concepts["anna"], "--to", "orthoplex", "--output", output).exit_code == 0
    assert load_concept(output).content_hash == load_concept(concepts["anna"]).content_hash


def test_what_is_left_out_is_named(run, tmp_path):
    path, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_tensors(of(K, alpha=2) | {f"{kohya(V)}.dora_scale": torch.ones(4)}, path)
    refused = run("convert", path, "--output", output)
    assert refused.exit_code == 2 and "is DoRA" in refused.stderr and not output.exists()
    result = run("convert", path, "--output", output, "--partial", "--dtype", "bfloat16")
    assert result.exit_code == 0 and "left out: " in result.stderr and "dora_scale" in result.stderr
    assert [*read_lora(output).layers] == [K]
    again = run("convert", path, "--output", output, "--partial")
    assert again.exit_code == 2 and "overwrite" in again.stderr


def test_a_family_that_is_not_clear(run, tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(CORPUS["FLUX.1 or Chroma"].tensors, path)
    result = run("convert", path, "--output", tmp_path / "b.safetensors")
    assert result.exit_code == 2 and "chroma, flux, flux2; name one with --family" in result.stderr
    shown = run("inspect", path, "--family", "flux", "--json")
    assert json.loads(shown.stdout)["version"] == "flux1"


def test_inspect_shows_a_folder_of_peft(run, tmp_path):
    folder = tmp_path / "adapter"
    write_tensors(CORPUS["PEFT's wrapper"].tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"lora_alpha": 4, "r": 2}')
    result = run("inspect", folder)
    assert result.exit_code == 0 and "factor 2 in the metadata" in result.stdout


def test_convert_names_the_programs_that_would_leave_layers_out(run, tmp_path):
    path, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_tensors(of(K, alpha=2), path)
    result = run("convert", path, "--to", "diffusers", "--output", output)
    assert "read whole by: diffusers" in result.stdout and "ComfyUI (reads none of its layers" in result.stdout
    shown = json.loads(run("inspect", output, "--json").stdout)["readers"]
    assert shown["diffusers"] == [] and shown["ComfyUI"] == [f"reads none of its layers, such as {K}"]


def test_nothing_is_written_over(run, concepts, tmp_path):
    """Neither an embedding beside without --overwrite, nor the file that is read."""
    output, beside = tmp_path / "anna.safetensors", tmp_path / "anna.anna.safetensors"
    beside.write_text("mine")
    refused = run("convert", concepts["anna"], "--output", output)
    assert refused.exit_code == 2 and "anna.anna.safetensors exists" in refused.stderr and not output.exists()
    assert run("convert", concepts["anna"], "--output", output, "--overwrite").exit_code == 0
    for name in (output, tmp_path / "." / "anna.safetensors"):
        refused = run("convert", output, "--output", name, "--overwrite", "--to", "comfy")
        assert refused.exit_code == 2 and "is the file that is converted; give another name" in refused.stderr
    assert all(key.startswith("lora_") for key in read_header(output).entries)


def test_options_that_a_concept_file_does_not_take_are_refused(run, concepts, tmp_path):
    output = tmp_path / "a.safetensors"
    refused = run("convert", concepts["anna"], "--to", "orthoplex", "--output", output, "--dtype", "float16")
    assert refused.exit_code == 2 and "--dtype given with --to orthoplex" in refused.stderr and not output.exists()


def test_full_differences_are_no_embedding(run, tmp_path):
    path, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_tensors({f"{kohya(K)}.diff": torch.ones(128, 192)}, path)
    result = run("convert", path, "--output", output)
    assert "b.safetensors: 1 full difference of" in result.stdout and "embedding" not in result.stdout
