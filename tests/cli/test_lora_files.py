"""Files that a prompt's tags name."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthoplex.cli.lora_files import lora_file, tagged_files
from orthoplex.errors import ConfigurationError
from orthoplex.models.prompts.lora_tags import LoraTag


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """A folder of LoRA files, one with a concept file, and a current folder."""
    for name in (
        "loras/style/Ink.safetensors",
        "loras/people/anna.safetensors",
        "loras/people/ANNA.safetensors",
        "loras/peft/adapter_config.json",
        "loras/peft/adapter_model.safetensors",
        "loras/notes.txt",
        "beside/given.safetensors",
        "beside/rex.safetensors",
        "here/mine.safetensors",
        "here/below/hidden.safetensors",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def named(name: str, places: Path) -> Path:
    return lora_file(name, folders=[places / "loras"], files=[places / "beside" / "given.safetensors"])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ink", "loras/style/Ink.safetensors"),
        ("Ink.safetensors", "loras/style/Ink.safetensors"),
        ("STYLE/ink", "loras/style/Ink.safetensors"),
        (r"style\Ink", "loras/style/Ink.safetensors"),
        ("anna", "loras/people/anna.safetensors"),
        ("people/ANNA", "loras/people/ANNA.safetensors"),
        ("peft", "loras/peft"),
        ("given", "beside/given.safetensors"),
        ("Rex", "beside/rex.safetensors"),
        ("mine", "here/mine.safetensors"),
    ],
)
def test_a_name_is_a_file_in_any_case(places, name, file):
    assert named(name, places).resolve() == (places / file).resolve()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Anna", "the prompt names file 'Anna', and there are 2: .*ANNA.safetensors, .*anna.safetensors; write more"),
        (
            "ann",
            "and there is none of that name in .*loras, .*beside, the current folder; near it are ANNA, anna; --lora",
        ),
        ("other/ink", "names file 'other/ink', and there is none"),
        ("hidden", "near it (is|are) "),
        ("adapter_model", "and there is none of that name"),
        ("notes", "and there is none of that name"),
    ],
)
def test_what_is_not_one_file_is_said(places, name, message):
    with pytest.raises(ConfigurationError, match=message):
        named(name, places)


def test_a_file_of_two_spellings_is_one_with_the_sum(places):
    prompt = "ink <lora:ink:0.5> <lora:rex> <lora:STYLE/Ink.safetensors:0.25:1>"
    words, tagged = tagged_files(prompt, [str(places / "beside" / "given")], [places / "loras"])
    assert words == "ink" and [(path.stem, tag) for path, tag in tagged] == [
        ("Ink", LoraTag("ink", 0.75, 1.5, is_ambiguous=True)),
        ("rex", LoraTag("rex", 1.0, 1.0)),
    ]


def test_where_nothing_is_there_nothing_is_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="in the current folder; no LoRA file is there; --lora-dir DIR names"):
        lora_file("ink", folders=[], files=[])
    with pytest.raises(ConfigurationError, match="--lora-dir is nowhere; allowed are folders that are there"):
        lora_file("ink", folders=[Path("nowhere")], files=[])
