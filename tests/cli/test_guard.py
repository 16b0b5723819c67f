"""Whatever a verb does, users see lines and an exit code, and a report has the rest."""

import signal
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from orthoplex.cli import guard
from orthoplex.cli.console import errors_shown
from orthoplex.cli.guard import guarded, unforeseen, what_is_done
from orthoplex.errors import ConfigurationError
from orthoplex.files import cache_folder

COMMAND = ["/somewhere/orthoplex", "merge", "anna.safetensors", "--output", "out"]


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def deep():
    deep()


def leaving(code):
    with errors_shown():
        sys.exit(code)


def warned():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)


def raising(error):
    def run():
        with errors_shown():
            raise error

    return run


@pytest.fixture
def door(monkeypatch):
    """What the guard puts in the place of the streams is out again when a test ends."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (raising(ZeroDivisionError("by zero")), "ZeroDivisionError: by zero"),
        (raising(KeyError("x")), "KeyError: 'x'"),
        (raising(ValueError()), "ValueError"),
        (raising(ValueError("one\n\n  two\n")), "ValueError: one two"),
        (raising(ValueError("x" * 1000)), f"ValueError: {'x' * 287}…"),
        (raising(NoText()), "NoText (its message cannot be shown)"),
        (raising(ExceptionGroup("all", [TypeError("a\nb")])), "ExceptionGroup: all (1 sub-exception): TypeError: a b"),
        (raising(UnicodeError("\ud800")), "UnicodeError: \\ud800"),
        (raising(GeneratorExit()), "GeneratorExit"),
        (deep, "RecursionError: maximum recursion depth exceeded"),
        (warned, "DeprecationWarning: old thing"),
        (lambda: leaving(0), "SystemExit: 0"),
        (lambda: leaving("bye"), "SystemExit: bye"),
    ],
)
def test_an_unforeseen_error_is_two_lines_and_a_report(run, line, door, capsys):
    assert guarded(run, COMMAND) == 70
    output = capsys.readouterr()
    first, second = output.err.splitlines()
    assert first == f"Error: orthoplex merge anna.safetensors --output out ended by an unforeseen error: {line}"
    path = Path(second.removeprefix("The full report is in "))
    text = path.read_text(encoding="utf-8")
    assert path.parent == cache_folder() / "reports" and output.out == ""
    assert "command: /somewhere/orthoplex merge anna.safetensors --output out\n" in text
    assert f"torch: {torch.__version__.split('+')[0]}" in text and "platform: " in text and "Traceback (most" in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "(MemoryError)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "(OutOfMemoryError: CUDA out of memory. Tried)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "(RuntimeError: DefaultCPUAllocator: can't"),
        (ExceptionGroup("all", [MemoryError()]), "(ExceptionGroup: all (1 sub-exception): MemoryError)"),
    ],
)
@pytest.mark.parametrize(("verb", "cure"), [("train", "batch_size=1"), ("generate", "--num-images"), ("demo", "end ")])
def test_too_little_memory_says_what_to_lower(error, words, verb, cure):
    first, _ = unforeseen(error, ["orthoplex", verb, "x"]).splitlines()
    assert first.startswith(f"Error: orthoplex {verb} x needs more memory than there is; ")
    assert cure in first and words in first


def test_an_error_that_lack_of_memory_led_to_says_so():
    error = ValueError("no answer")
    error.__cause__ = MemoryError()
    assert "needs more memory" in unforeseen(error, COMMAND)
    error.__cause__ = error
    assert "needs more memory" not in unforeseen(error, COMMAND)


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        (raising(ConfigurationError("steps is 0\n and more")), 2, "Error: steps is 0 and more\n"),
        (raising(OSError()), 2, "Error: OSError\n"),
        (raising(KeyboardInterrupt()), 130, "Interrupted\n"),
        (lambda: signal.raise_signal(signal.SIGINT), 130, "Interrupted\n"),
        (lambda: sys.exit(3), 3, ""),
        (lambda: sys.exit("as the parser says"), 1, "as the parser says\n"),
        (lambda: None, 0, ""),
    ],
)
def test_foreseen_ends_are_as_they_were(run, code, line, door, capsys, monkeypatch):
    import typer

    def verb():
        try:
            run()
        except typer.Exit as left:  # as the command line's library does
            sys.exit(left.exit_code)

    monkeypatch.setattr(guard, "reported", None)
    assert guarded(verb, COMMAND) == code
    assert capsys.readouterr().err == line


def test_a_report_that_cannot_be_written_is_no_second_error(monkeypatch):
    def refusing(*arguments, **options):
        raise OSError("read-only")

    monkeypatch.setattr(tempfile, "mkstemp", refusing)
    assert unforeseen(ValueError("x"), COMMAND).splitlines()[1] == "No report could be written"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "orthoplex"),
        (["train", "my pictures", "--resume"], "orthoplex train 'my pictures' --resume"),
        (["check", "--json", "photos"], "orthoplex check --json photos"),
        (["generate", "x" * 120], f"orthoplex generate {'x' * 100}…"),
    ],
)
def test_the_work_is_named_by_its_command(words, shown):
    assert what_is_done(["orthoplex", *words]) == shown
