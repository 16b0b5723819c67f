import json
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

from orthoplex.concepts import load_concept, read_manifest, save_concept
from orthoplex.files import read_header


def test_table_for_people(run, concepts):
    result = run("inspect", concepts["anna"])
    assert result.exit_code == 0, result.stderr
    count = len(read_manifest(concepts["anna"]).layers)
    for text in ("<anna> person", "orthogonal", f"{count} in unet", "slot 0", "dct2-sha256-v1", "<anna>_1", "pipeline"):
        assert text in " ".join(result.stdout.split()).replace("│", " "), text
    assert read_manifest(concepts["anna"]).thumbnail[:40] not in result.stdout


def test_json_is_the_whole_manifest(run, concepts):
    result = run("inspect", concepts["anna"], "--json")
    values, manifest = json.loads(result.stdout), read_manifest(concepts["anna"])
    assert (values["name"], values["content_hash"]) == ("anna", manifest.content_hash)
    assert values["thumbnail"] == manifest.thumbnail and len(values["layers"]) == len(manifest.layers)


def test_tensors_are_not_read(run, concepts, tmp_path):
    """A file cut off behind its header is still inspected: only the header is looked at."""
    whole = concepts["anna"].read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(whole[:-100] + b"\xff" * 100)
    assert run("inspect", damaged).exit_code == 0


@pytest.mark.parametrize("content", [None, b"", b"not a concept file at all"])
def test_errors_are_one_line(run, tmp_path, content):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    result = run("inspect", path)
    assert result.exit_code == 2 and "x.safetensors" in result.stderr and "Traceback" not in result.stderr


def test_brackets_are_no_markup(run, concepts, tmp_path):
    path = tmp_path / "[" / "bold] anna\\.safetensors"
    path.parent.mkdir()
    concept = load_concept(concepts["anna"])
    manifest = replace(concept.manifest, class_word="[/bold]", trigger="<anna> [red]\\")
    save_concept(replace(concept, manifest=manifest), path)
    result = run("inspect", path)
    assert result.exit_code == 0, result.exception
    for text in ("│ [/bold]", "<anna> [red]\\", f"{path.parent.name}/bold]"):
        assert text in result.stdout


def test_a_folder_is_told_from_a_missing_file(run, tmp_path):
    assert "is a folder, allowed is a safetensors file" in run("inspect", tmp_path).stderr


def test_a_file_that_is_cut_off_is_shown_and_named(run, concepts, tmp_path):
    path = tmp_path / "anna.safetensors"
    path.write_bytes(concepts["anna"].read_bytes()[:-10])
    result = run("inspect", tmp_path / "anna")
    assert result.exit_code == 2 and "anna" in result.stdout and "truncated: holds" in result.stderr


def test_a_concept_names_the_programs_that_read_it(run):
    """The trained concepts of the package: kohya names, one rank, one type."""
    path = files("orthoplex") / "vignette" / "concepts" / "lora" / "anna.safetensors"
    shown = " ".join(run("inspect", path).stdout.replace("│", " ").split())
    assert "read whole by ComfyUI, Forge, sd-scripts, diffusers, InvokeAI, OpenVINO GenAI" in shown


def test_an_embedding_of_pytorch_is_shown_and_no_other_pickle(run, tmp_path):
    torch.save({"string_to_param": {"*": torch.ones(2, 768)}}, tmp_path / "cat.pt")
    assert "cat: 2 of 768 numbers for text_encoder" in " ".join(run("inspect", tmp_path / "cat.pt").stdout.split())
    shown = json.loads(run("inspect", tmp_path / "cat.pt", "--json").stdout)
    assert shown["embeddings"] == {"cat": {"text_encoder": [2, 768]}}
    assert run("convert", tmp_path / "cat.pt", "--output", tmp_path / "cat.safetensors").exit_code == 0
    assert [*read_header(tmp_path / "cat.safetensors").entries] == ["cat"]
    torch.save({"a": torch.nn.Linear(1, 1)}, tmp_path / "code.pt")
    refused = run("inspect", tmp_path / "code.pt")
    assert refused.exit_code == 2 and "'.pt' is a pickle format and is never opened" in refused.stderr
