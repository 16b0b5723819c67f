import importlib.metadata
import runpy
import signal
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from orthoplex import __version__
from orthoplex.cli import app, main

VERBS = (
    "check",
    "train",
    "silence",
    "adopt",
    "conflicts",
    "merge",
    "generate",
    "inspect",
    "convert",
    "rename",
    "demo",
    "bench",
)


def test_version(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"orthoplex {__version__} (torch ")
    assert importlib.metadata.version("diffusers") in result.stdout


def test_help_names_every_verb(run):
    result = run("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        assert verb in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(run, verb):
    assert run(verb, "--help").exit_code == 0


def test_unknown_verb(run):
    assert run("teach").exit_code == 2


@pytest.fixture
def door(monkeypatch):
    """What the door changes is as before when a test ends."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    yield
    signal.signal(signal.SIGTERM, before)


def test_main_is_the_entry_point(monkeypatch, door):
    called = []
    monkeypatch.setattr("orthoplex.cli.app", lambda: called.append(app))
    with pytest.raises(SystemExit) as left:
        main()
    assert called == [app] and left.value.code == 0
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["orthoplex"] == "orthoplex.__main__:main"


def test_a_request_to_end_is_a_ctrl_c(monkeypatch, door, capsys):
    monkeypatch.setattr("orthoplex.cli.app", lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130 and capsys.readouterr().err == "Interrupted\n"


def test_the_package_can_be_run(monkeypatch, capsys, door):
    monkeypatch.setattr(sys, "argv", ["orthoplex", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("orthoplex", run_name="__main__")
    assert left.value.code == 0 and capsys.readouterr().out.startswith(f"orthoplex {__version__} (torch ")


def test_ctrl_c_during_the_imports_is_quiet(monkeypatch):
    class Interrupting(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "orthoplex.cli", Interrupting("orthoplex.cli"))
    with pytest.raises(SystemExit) as left:
        runpy.run_module("orthoplex.__main__")
    assert left.value.code == 130


def test_an_error_of_the_imports_is_two_lines_and_a_report(monkeypatch, capsys):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise ImportError("no typer\nhere")

    monkeypatch.setitem(sys.modules, "orthoplex.cli", Broken("orthoplex.cli"))
    with pytest.raises(SystemExit) as left:
        runpy.run_module("orthoplex.__main__")
    first, second = capsys.readouterr().err.splitlines()
    assert left.value.code == 70 and first == "Error: orthoplex cannot be loaded: ImportError: no typer here"
    assert "ImportError: no typer" in Path(second.removeprefix("The full report is in ")).read_text()
