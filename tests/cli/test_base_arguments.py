"""Every verb that takes a base takes names of the hub, checkpoint files and variants."""

from __future__ import annotations

import inspect
import logging

import pytest
from huggingface_hub import constants

from orthoplex.cli import app
from orthoplex.cli.base_arguments import chosen_base, weight_type
from orthoplex.cli.streams import warnings_shown
from tests.checkpoints import stable_diffusion_parts, write_checkpoint
from tests.models.test_hub import NAME, put

WITH_BASE = {"train", "check", "silence", "adopt", "conflicts", "merge", "generate"}


def test_every_verb_with_a_base_has_the_options_of_a_base():
    verbs = {command.callback.__name__: inspect.signature(command.callback) for command in app.registered_commands}
    assert {name for name, verb in verbs.items() if "base" in verb.parameters} >= WITH_BASE
    for name in WITH_BASE:
        assert {"base", "variant", "base_config", "download"} <= verbs[name].parameters.keys()


@pytest.fixture
def cache(tmp_path, monkeypatch, pico_folder):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    put(tmp_path / "hub", pico_folder)


def test_a_name_of_the_hub_and_a_checkpoint_file_draw_the_same_picture(run, cache, pico, pico_folder, tmp_path):
    path = write_checkpoint(tmp_path / "mix.safetensors", stable_diffusion_parts(pico.pipeline))
    for output, options in {
        "hub.png": ["--base", NAME],
        "file.png": ["--base", path, "--base-config", pico_folder],
        "folder.png": ["--base", pico_folder, "--dtype", "float32"],
    }.items():
        result = run("generate", "a cat", "--output", tmp_path / output, "--steps", 1, *options)
        assert result.exit_code == 0, result.stderr
    from PIL import Image

    pictures = [Image.open(tmp_path / f"{name}.png").tobytes() for name in ("hub", "file", "folder")]
    assert pictures[0] == pictures[1] == pictures[2]


def test_check_knows_a_name_of_the_hub(run, cache):
    result = run("check", NAME)
    assert result.exit_code == 0 and "sd1" in result.stdout, result.stderr
    result = run("check", "somebody/else", "--download")
    assert result.exit_code == 2 and "HF_HUB_OFFLINE forbids to fetch it" in result.stdout + result.stderr


def test_options_become_a_choice():
    choice = chosen_base("vignette", "fp16", "folder", True)
    assert (choice.name, choice.variant, choice.config, choice.download) == ("vignette", "fp16", "folder", True)
    assert str(choice) == "vignette" and str(weight_type("bfloat16")) == "torch.bfloat16"


def test_notes_of_the_library_are_shown_as_they_are(capsys):
    with warnings_shown():
        logging.getLogger("orthoplex.models.hub").info("fetching a/b from the hub: 3 files, 2.10 GB, into its cache")
        logging.getLogger("orthoplex.models.hub").debug("no line")
    assert capsys.readouterr().err == "fetching a/b from the hub: 3 files, 2.10 GB, into its cache\n"
