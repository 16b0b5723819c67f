import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from safetensors import SafetensorError

from orthoplex.benchmark import BenchmarkEvent
from orthoplex.cli import console
from orthoplex.cli.console import (
    errors_shown,
    load_concepts,
    parse_strength,
    progress_bar,
    refuse_existing,
    refuse_file,
    show_events,
)
from orthoplex.cli.guard import LeftByLibrary
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


@pytest.mark.parametrize("error", [OSError(28, "no space left"), SafetensorError("no space left")])
def test_what_the_file_system_refuses_is_one_line(capsys, error):
    with pytest.raises(typer.Exit) as left, errors_shown():
        raise error
    assert left.value.exit_code == 2 and capsys.readouterr().err == f"Error: {error}\n"


def test_other_errors_are_left_to_the_guard():
    with pytest.raises(ZeroDivisionError), errors_shown():
        raise ZeroDivisionError
    with pytest.raises(LeftByLibrary), errors_shown():
        raise SystemExit(0)


@pytest.mark.parametrize(
    ("text", "name", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors@0.8", "a.safetensors", 0.8),
        ("a@-1", "a.safetensors", -1.0),
        ("folder/a", "folder/a.safetensors", 1.0),
        ("me@home/a.safetensors@2", "me@home/a.safetensors", 2.0),
        ("anna.v2@0.5", "anna.v2.safetensors", 0.5),
        ("me@home/anna", "me@home/anna.safetensors", 1.0),
        ("me@home/a.safetensors", "me@home/a.safetensors", 1.0),
        ("me@home/anna@-2", "me@home/anna.safetensors", -2.0),
    ],
)
def test_strengths(text, name, strength):
    assert parse_strength(text) == (Path(name), strength)


@pytest.mark.parametrize("text", ["a@loud", "a@", "a@nan", "a@inf", "a.safetensors@"])
def test_bad_strengths_are_named(text):
    with pytest.raises(ConfigurationError, match=r"strength of .* is '.*'; allowed are finite numbers"):
        parse_strength(text)


@pytest.mark.parametrize("text", ["", "@0.5", ".", "/", "/@2"])
def test_concepts_without_a_name_are_named(text):
    with pytest.raises(ConfigurationError, match=f"concept is '{text}'; allowed are file names"):
        parse_strength(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anna@80%", "strength of anna is '80%'; allowed are finite numbers, as in anna@0.8"),
        ("anna@12.5 %", "as in anna@0.125"),
        ("anna@0,8", "strength of anna is '0,8'; allowed are finite numbers, as in anna@0.8"),
        ("anna@0.8.safetensors", "strength of anna is '0.8.safetensors'; .* as in anna.safetensors@0.8"),
        ("anna.safetensors@", "strength of anna.safetensors is ''; .* as in anna.safetensors@0.8"),
        ("anna:0.8", "concept is 'anna:0.8'; a strength stands behind an @, as in anna@0.8"),
        ("a/anna.safetensors:80%", "as in a/anna.safetensors@0.8"),
        ("anna:0,5", "as in anna@0.5"),
        ("<lora:anna:0.8>", "concept is '<lora:anna:0.8>'; .* as in anna@0.8"),
        ("<lora:anna:0.8:0.5>", "as in anna@0.8"),
        ("anna.safetensors=0.5", "concept is 'anna.safetensors=0.5'; .* as in anna.safetensors@0.5"),
        (r"anna*0.5", "as in anna@0.5"),
        ("anna@1_0", "strength of anna is '1_0'; allowed are finite numbers, as in anna@0.8"),
        ("anna@\u0661", "allowed are finite numbers"),
        ("anna,bob", "concept is 'anna,bob'; there is no such file, each file stands alone, as in anna bob$"),
        ("anna@0.5, bob@1", "each file stands alone, as in anna@0.5 bob@1$"),
        ("https://host/anna.safetensors", "an address is not read, download the file first and give it"),
        ("file:///home/anna.safetensors@0.5", "an address is not read"),
    ],
)
def test_other_spellings_of_a_strength_lead_to_ours(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_strength(text)


@pytest.mark.parametrize("name", ["ANNA.safetensors", "anna.safetensors ", "Anna", "anna .safetensors@0.5"])
def test_a_file_of_nearly_the_name_is_named(tmp_path, name):
    (tmp_path / "anna.safetensors").write_text("")
    with pytest.raises(ConfigurationError) as error:
        parse_strength(f"{tmp_path}/{name}")
    assert str(error.value).endswith(f"; there is no such file, but {tmp_path / 'anna.safetensors'}")


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin"])
def test_pickles_are_named_as_they_are(suffix):
    assert parse_strength(f"nofile{suffix}@0.5") == (Path(f"nofile{suffix}"), 0.5)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), f"{'x' * 60}… cannot be used: File name too lo"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            "a/b cannot be used: Permission denied; allow read",
        ),
        (OSError("no number"), "no number"),
    ],
)
def test_errors_of_the_system_are_told_in_words(capsys, error, line):
    with pytest.raises(typer.Exit), errors_shown():
        raise error
    assert capsys.readouterr().err.startswith(f"Error: {line}")


@pytest.mark.parametrize("verb", ["check", "train"])
@pytest.mark.parametrize(
    ("text", "line"), [("", "folder is ''; allowed is"), ("https://h/x", "an address is not read")]
)
def test_a_folder_that_is_none_is_named(run, verb, text, line):
    result = run(verb, text, *(("--name", "a", "--class-word", "b") if verb == "train" else ()))
    assert result.exit_code == 2 and line in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["me@home", "anna@0.8", "anna:0.8"])
def test_a_file_of_the_whole_name_counts_more(tmp_path, name):
    (tmp_path / f"{name}.safetensors").write_text("")
    assert parse_strength(f"{tmp_path}/{name}") == (tmp_path / f"{name}.safetensors", 1.0)
    assert parse_strength(f"{tmp_path}/{name}@0.5") == (tmp_path / f"{name}.safetensors", 0.5)


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


def test_files_in_the_place_of_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refuse_file(tmp_path / "new" / "newer")
    for folder in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(ConfigurationError, match=f"folder {folder} cannot be: .*file is a file; give another name"):
            refuse_file(folder)


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


def test_progress_takes_texts_as_they_are(capsys):
    with progress_bar("loss") as bar:
        bar.update(bar.add_task("train: [/bold] anna[x]", total=1, loss="[/]"), completed=1)
    error = capsys.readouterr().err
    assert "[/bold] anna[x]" in error and "[/]" in error


def test_a_log_gets_a_line_a_minute(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now))

    def events():
        nonlocal now
        for done, seconds in ((1, 0.0), (2, 30.0), (3, 61.0)):
            now = seconds
            yield BenchmarkEvent("train", done, 3, "anna")

    assert show_events(events())["train"].done == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: anna ") and "/3" in line]
    assert [line for line in lines if "━" not in line] == ["train: anna 1/3", "train: anna 3/3"]
