import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from orthoplex import __version__
from orthoplex.cli import app, main


def test_version(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"orthoplex {__version__} (torch ")
    assert importlib.metadata.version("diffusers") in result.stdout


def test_help_names_every_verb(run):
    result = run("--help")
    assert result.exit_code == 0
    for verb in ("train", "merge", "generate", "inspect", "demo", "bench"):
        assert verb in result.stdout


@pytest.mark.parametrize("verb", ["train", "merge", "generate", "inspect", "demo", "bench"])
def test_every_verb_has_help(run, verb):
    assert run(verb, "--help").exit_code == 0


def test_unknown_verb(run):
    assert run("teach").exit_code == 2


def test_main_is_the_entry_point(monkeypatch):
    called = []
    monkeypatch.setattr("orthoplex.cli.app", lambda: called.append(app))
    main()
    assert called == [app]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["orthoplex"] == "orthoplex.cli:main"
