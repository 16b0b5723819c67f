"""``orthoplex adopt``, and LoRA files of other programs in ``generate`` and ``merge``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orthoplex.concepts import any_file, load_concept
from orthoplex.concepts.exchange import reading
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.layer_table import layer_table
from orthoplex.files import write_tensors
from orthoplex.generation import read_recipe
from orthoplex.models import load_base
from tests.concepts.exchange.corpus import K, of
from tests.pico import make_concept


@pytest.fixture
def lora(pico_folder, tmp_path, monkeypatch) -> Path:
    """A file of another program, for layers of shapes that no published base has; its reading is replaced."""
    path = tmp_path / "loras" / "My Style.safetensors"
    path.parent.mkdir()
    save_file({"lora_unet_a.lora_down.weight": torch.ones(1, 1)}, path)
    concept = make_concept(load_base(pico_folder), selection="cross-attention-kv", text_encoder=True, scale=1.0)
    words = {"modelspec.trigger_phrase": "sks style; ohwx"}
    read = LoraFile("My Style", "kohya", "stable_diffusion", None, concept.layers, metadata=words, path=path)
    for module in (any_file, reading):
        monkeypatch.setattr(module, "read_lora", lambda asked: read if Path(asked) == path else pytest.fail(asked))
    return path


def test_a_lora_becomes_a_concept_file(run, lora, pico_folder, tmp_path):
    output = tmp_path / "style.safetensors"
    options = ["--class-word", "style", "--trigger", "sks style", "--name", "ink", "--weight", 5, "--slot", 1]
    result = run("adopt", lora, *options, "--base", pico_folder, "--output", output)
    assert result.exit_code == 0, result.stderr
    manifest = load_concept(output).manifest
    assert (manifest.name, manifest.kind, manifest.trigger, manifest.class_word) == (
        "ink",
        "style",
        "sks style",
        "style",
    )
    assert (manifest.slot, manifest.training["erasure"], manifest.training["file"]) == (1, 5.0, "My Style")
    lines = result.stdout.splitlines()
    assert lines[0] == "| layer | energy kept on own prompts | energy left on foreign prompts |"
    assert len(lines) == 2 + len(manifest.layers) + 2
    assert lines[-1].startswith(f"{output}: ink, called by 'sks style', in ") and "mean of 16 layers" in lines[-1]


def test_a_file_is_merged_and_pictured_as_it_is(run, lora, concepts, pico_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    draw = ["--base", pico_folder, "--steps", 1, "--concept", concepts["anna"]]
    result = run("generate", "<anna>", *draw, "--concept", f"{lora}@0.5", "--output", "given.png")
    assert result.exit_code == 0, result.stderr
    assert "my-style is loaded and its trigger is not in the prompt; write sks style; ohwx" in result.stderr
    tagged = "<anna>, OHWX <lora:my style:0.5:0.25>"
    result = run("generate", tagged, *draw, "--lora-dir", lora.parent, "--output", "tagged.png")
    assert result.exit_code == 0, result.stderr
    assert "<lora:my style:0.5:0.25> is read as SwarmUI does: 0.25 is for the text encoder" in result.stderr
    assert "trigger is not in the prompt" not in result.stderr
    given, tags = read_recipe(Path("given.png")), read_recipe(Path("tagged.png"))
    assert tags["prompt"] == "<anna>, OHWX" and [item["strength"] for item in tags["merge"]["concepts"]] == [1.0, 0.5]
    [tag] = tags["lora_tags"]
    assert (tag["name"], tag["strength"], tag["text_strength"]) == ("my style", 0.5, 0.25)
    assert "lora_tags" not in given and given["merge"] != tags["merge"]  # the text encoder's strength is another
    result = run("merge", concepts["anna"], f"{lora}@0.5", "--base", pico_folder, "--output", tmp_path / "merged")
    assert result.exit_code == 0 and "<anna>" in load_base(tmp_path / "merged").tokens, result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "out.txt"], "end in .safetensors"),
        (["--weight", "0"], "--weight is 0.0; allowed are finite numbers above 0"),
        (["--kind", "people"], "kind 'people' is not one of"),
        (["--name", "My Style"], "concept name 'My Style' is not allowed"),
        (["--slot", "99"], "slot is 99; at width 24"),
        (["--unsolved", "drop"], "drop"),
    ],
)
def test_what_is_not_allowed_is_said(run, lora, pico_folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    given = ["--class-word", "style", "--base", pico_folder, "--output", "out.safetensors", *options]
    result = run("adopt", lora, *given)
    assert result.exit_code == 2 and message in result.stderr and not Path("out.safetensors").exists()


def test_a_file_without_a_trigger_gets_advice(run, lora, pico_folder, tmp_path, monkeypatch):
    read = replace(reading.read_lora(lora), metadata={"ss_tag_frequency": '{"a": {"sks": 3}}'})
    monkeypatch.setattr(reading, "read_lora", lambda _: read)
    options = ["--class-word", "style", "--base", pico_folder, "--output", tmp_path / "out.safetensors"]
    result = run("adopt", lora, *options)
    advice = (
        "its header tells no trigger; pass --trigger, as in --trigger 'sks style' (the training pictures are tagged"
    )
    assert result.exit_code == 2 and f"{advice} 'sks' most)" in result.stderr


@pytest.fixture
def kohya(tmp_path) -> Path:
    """A file as sd-scripts writes one, for the embedded base: keys of one layer, alpha 2 of rank 4, and a window."""
    file = tmp_path / "Ink v2.safetensors"
    table = layer_table("vignette")
    assert table is not None
    shapes = table.versions["vignette"]
    chosen = [
        next(layer for layer in shapes if layer.endswith("attn2.to_k")),
        next(layer for layer, shape in shapes.items() if layer.startswith("unet.") and shape[2:] == (3, 3)),
    ]
    tensors, random = {}, torch.Generator().manual_seed(0)
    for layer in chosen:
        (height, width, *window), module = shapes[layer], "lora_" + layer.replace(".", "_")
        tensors[f"{module}.lora_down.weight"] = torch.randn(4, width, *window, generator=random).half()
        tensors[f"{module}.lora_up.weight"] = torch.randn(height, 4, *([1] * len(window)), generator=random).half()
        tensors[f"{module}.alpha"] = torch.tensor(2.0)
    save_file(tensors, file, {"ss_network_module": "networks.lora", "modelspec.trigger_phrase": "sks person"})
    return file


def test_a_file_of_sd_scripts_passes_the_command(run, kohya, tmp_path):
    output = tmp_path / "ink.safetensors"
    given = ["adopt", kohya, "--class-word", "person", "--output", output]
    refused = run(*given, "--slot", 1)
    assert refused.exit_code == 2 and "slot is 1, and 1 layer of concept ink-v2" in refused.stderr
    result = run(*given)
    assert result.exit_code == 0, result.stderr
    read, adopted = reading.read_lora(kohya), load_concept(output)
    [window] = read.windows
    [key] = read.layers.keys() - read.windows.keys()
    assert (adopted.name, adopted.manifest.method, adopted.manifest.trigger) == ("ink-v2", "foreign", "sks person")
    assert torch.equal(adopted.layers[window].delta(), read.layers[window].delta())
    sizes = [float(read.layers[layer].delta().square().sum()) for layer in (key, window)]
    assert (
        "1 layer; 1 layer that erasure cannot solve for: "
        f"{100 * sizes[1] / sum(sizes):.1f} % of the file's change by squared size stays and acts on every prompt"
    ) in result.stdout
    again = run("conflicts", output, f"{kohya}@0.5:0.25", "--base", "vignette", "--json")
    values = json.loads(again.stdout)
    assert again.exit_code == 3 and values["files"][1]["strengths"] == "0.5; te=0.25"
    assert {clash["kind"] for clash in values["clashes"]} >= {"trigger"}
    assert values["quantity"] == "crosstalk" and all(file["crosstalk"] > 0 for file in values["files"])


def test_a_concept_of_ours_is_referred_to_silence(run, concepts, pico_folder, tmp_path):
    options = ["--class-word", "person", "--base", pico_folder, "--output", tmp_path / "out.safetensors"]
    result = run("adopt", concepts["anna"], *options)
    assert result.exit_code == 2 and "is a concept of Orthoplex already; orthoplex silence makes it" in result.stderr
    missing = run("adopt", tmp_path / "nowhere", *options)
    assert missing.exit_code == 2 and "nowhere.safetensors" in missing.stderr


def test_a_trigger_whose_token_is_nowhere_is_refused(run, pico_folder, tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(of(K, alpha=2), path, {"modelspec.trigger_phrase": "<otto> man"})
    result = run("adopt", path, "--class-word", "man", "--output", tmp_path / "b.safetensors", "--base", pico_folder)
    assert result.exit_code == 2 and "its trigger names <otto>, whose embedding is neither in it" in result.stderr
