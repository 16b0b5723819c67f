from pathlib import Path

import pytest
import typer

from orthoplex.cli.console import errors_shown, load_concepts, parse_strength, progress_bar, refuse_existing
from orthoplex.errors import ConceptFileError, ConfigurationError
from orthoplex.models import load_base


def test_errors_go_to_standard_error_with_code_2(capsys):
    with pytest.raises(typer.Exit) as left, errors_shown():
        raise ConfigurationError("steps is 0")
    output = capsys.readouterr()
    assert (left.value.exit_code, output.err, output.out) == (2, "Error: steps is 0\n", "")


def test_ctrl_c_leaves_with_130(capsys):
    with pytest.raises(typer.Exit) as left, errors_shown():
        raise KeyboardInterrupt
    assert left.value.exit_code == 130 and capsys.readouterr().err == "Interrupted\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), errors_shown():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("text", "name", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors@0.8", "a.safetensors", 0.8),
        ("a@-1", "a.safetensors", -1.0),
        ("folder/a", "folder/a.safetensors", 1.0),
        ("me@home/a.safetensors@2", "me@home/a.safetensors", 2.0),
        ("anna.v2@0.5", "anna.v2.safetensors", 0.5),
    ],
)
def test_strengths(text, name, strength):
    assert parse_strength(text) == (Path(name), strength)


@pytest.mark.parametrize("text", ["a@loud", "a@", "a@nan", "a@inf", "me@home/a.safetensors"])
def test_bad_strengths_are_named(text):
    with pytest.raises(ConfigurationError, match=r"strength of .* is '.*'; allowed are finite numbers"):
        parse_strength(text)


def test_files_that_exist_are_taken_as_they_are(tmp_path):
    path = tmp_path / "a@0.8"
    path.write_text("")
    assert parse_strength(str(path)) == (path, 1.0)


def test_existing_outputs_are_refused(tmp_path):
    path = tmp_path / "out.png"
    refuse_existing(path, overwrite=False)
    path.write_text("")
    refuse_existing(path, overwrite=True)
    refuse_existing(tmp_path / "new", overwrite=False)
    with pytest.raises(ConfigurationError, match="output .*out.png exists; give another name, or --overwrite"):
        refuse_existing(path, overwrite=False)
    with pytest.raises(ConfigurationError, match="exists"):
        refuse_existing(tmp_path, overwrite=False)
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", overwrite=False)


def test_concepts_must_fit_the_base(pico_folder, concepts):
    base = load_base(pico_folder)
    [(concept, strength)] = load_concepts([f"{concepts['anna']}@0.5"], base)
    assert (concept.name, strength) == ("anna", 0.5)
    with pytest.raises(ConceptFileError, match="bob.safetensors"):
        load_concepts(["bob"], base)


def test_progress_is_drawn_on_standard_error(capsys):
    with progress_bar("loss") as bar:
        bar.update(bar.add_task("training", total=2, loss="loss 0.5"), completed=2)
    output = capsys.readouterr()
    assert "training" in output.err and "loss 0.5" in output.err and "2/2" in output.err and output.out == ""
