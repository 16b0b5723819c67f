"""Standard output and standard error that cannot fail."""

import errno
import io
import json
import logging
import os
import subprocess
import sys

import pytest

from orthoplex import vignette
from orthoplex.cli.console import errors_shown, progress_bar
from orthoplex.cli.guard import guarded
from orthoplex.cli.streams import Outlet, note, open_streams, say, say_json, say_table, warn

ANNA = str(vignette.concept_file("anna", method="orthogonal"))
UNWRITTEN = "Error: standard output cannot be written: No space left on device; its text is lost, files are not\n"


class Refusing(io.BytesIO):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, data):
        raise OSError(self.number, os.strerror(self.number))


class Busy(io.BytesIO):
    """Takes a byte at every second call, as a console that does not let a writer wait."""

    calls = 0

    def write(self, data):
        self.calls += 1
        return None if self.calls % 2 else super().write(bytes(data)[:1])


@pytest.fixture
def streams(monkeypatch):
    """Put streams of these bytes and this encoding in the place of the standard ones."""

    def put(output, error=None, encoding="utf-8"):
        for name, inner in (("stdout", output), ("stderr", error)):
            text = None if inner is None else io.TextIOWrapper(inner, encoding=encoding, errors="strict")
            monkeypatch.setattr(sys, name, text)

    return put


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "кот"), ("cp1252", r"\u043a\u043e\u0442"), ("ascii", r"\u043a\u043e\u0442")]
)
def test_text_that_the_console_cannot_show_is_escaped(streams, encoding, shown):
    output, error = io.BytesIO(), io.BytesIO()
    streams(output, error, encoding)
    assert guarded(lambda: (say("кот"), note("кот"), warn("кот\nдва")), []) == 0
    assert output.getvalue().decode(encoding) == shown + "\n"
    assert error.getvalue().decode(encoding).startswith(f"{shown}\nWarning: {shown} ")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("text", ["кот", "😀", "\ud800", "a\x1b[0m"])
def test_json_stays_json_on_every_console(streams, encoding, text):
    output = io.BytesIO()
    streams(output, io.BytesIO(), encoding)
    assert guarded(lambda: say_json({"name": text}), []) == 0
    assert json.loads(output.getvalue().decode(encoding)) == {"name": text}


@pytest.mark.parametrize(
    ("output", "code", "line"),
    [
        (Refusing(errno.ENOSPC), 74, UNWRITTEN),
        (
            Refusing(errno.EIO),
            74,
            "Error: standard output cannot be written: Input/output error; its text is lost, files are not\n",
        ),
        (None, 74, "Error: standard output cannot be written: Bad file descriptor; its text is lost, files are not\n"),
        (Refusing(errno.EPIPE), 0, ""),
        (Busy(), 0, ""),
    ],
)
def test_a_console_that_takes_nothing_stops_no_work(streams, output, code, line):
    error, done = io.BytesIO(), []
    streams(output, error)

    def run():
        for number in range(3):
            say(f"{number}")
            done.append(number)

    assert (guarded(run, []), done, error.getvalue().decode()) == (code, [0, 1, 2], line)
    if isinstance(output, Busy):
        assert output.getvalue() == b"0\n1\n2\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_standard_error_changes_no_exit_code(streams, number):
    output = io.BytesIO()
    streams(output, Refusing(number))
    assert guarded(lambda: (warn("x"), say("done")), []) == 0 and output.getvalue() == b"done\n"
    streams(output, None)
    assert guarded(lambda: sys.exit(2), []) == 2


def test_an_error_of_a_verb_counts_more_than_the_console(streams):
    streams(Refusing(errno.ENOSPC), io.BytesIO())
    assert guarded(lambda: (say("x"), sys.exit(2)), []) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize(("name", "value"), [("COLUMNS", "1"), ("COLUMNS", "0"), ("TERM", "dumb"), ("NO_COLOR", "1")])
def test_tables_and_bars_are_drawn_on_every_console(streams, monkeypatch, encoding, name, value):
    monkeypatch.setenv(name, value)
    output, error = io.BytesIO(), io.BytesIO()
    streams(output, error, encoding)

    def run():
        with progress_bar("loss") as bar:
            bar.update(bar.add_task("кот", total=2, loss="1"), completed=2)
        say_table("a title", [("key", "long/" * 30), ("кот", "[/x]")])

    assert guarded(run, []) == 0
    text = output.getvalue().decode(encoding)
    assert "a title" in text and "[/x]" in text and text.count("long/") >= 25 and "2/2" in error.getvalue().decode()


def test_streams_without_a_number_say_so():
    outlet = Outlet(None)
    assert outlet.writable() and not outlet.isatty() and outlet.write(b"abc") == 3
    with pytest.raises(OSError):
        outlet.fileno()


def test_warnings_of_the_library_are_lines(capsys):
    log = logging.getLogger("orthoplex.some.room")
    with errors_shown():
        log.warning("slots %d\nmeet", 3)
        log.info("2.10 GB")
        log.debug("no word")
    assert capsys.readouterr().err == "Warning: slots 3 meet\n2.10 GB\n"
    assert not logging.getLogger("orthoplex").handlers


@pytest.mark.parametrize(
    ("redirections", "code", "error"),
    [
        (">/dev/full", 74, UNWRITTEN),
        (">&-", 74, UNWRITTEN.replace("No space left on device", "Bad file descriptor")),
        (">/dev/full 2>/dev/full", 74, ""),
        ("2>&- | head -c 9 >/dev/null; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_the_command_in_a_shell(redirections, code, error):
    command = f'"{sys.executable}" -m orthoplex inspect "{ANNA}" {redirections}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, error)


def test_closed_streams_keep_their_numbers(monkeypatch):
    """A file that is opened later must not get what libraries print."""
    code = "import os; from orthoplex.cli.streams import open_streams; open_streams(); f = open(os.devnull); "
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{code} os._exit(f.fileno())" <&- >&- 2>&-'])
    assert done.returncode >= 3


def test_streams_of_another_kind_are_left_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    outlet = open_streams()
    say("x")
    assert outlet.failure is not None and outlet.failure.errno == errno.EBADF


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red \x1b[31m \x07\x00", "red \\x1b[31m \\x07\\x00"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("a\u202eb\r", "a\\u202eb\\x0d"),
        ("tab\tand\nline é \U0001f469\u200d\U0001f4bb", "tab\tand\nline é \U0001f469\u200d\U0001f4bb"),
    ],
)
def test_characters_that_steer_a_terminal_are_shown_as_escapes(capsys, text, shown):
    say(text)
    note(text)
    output = capsys.readouterr()
    assert output.out == output.err == f"{shown}\n"


def test_json_that_holds_them_is_json(capsys):
    say_json({"a": "\u2028\x7f\x9b\n"})
    output = capsys.readouterr().out
    assert json.loads(output) == {"a": "\u2028\x7f\x9b\n"} and output.isascii()
