"""The command under many consoles: the exit code says what became of the words, and nothing is a traceback."""

import os
import subprocess
import sys
from itertools import product

import pytest

from orthoplex import vignette

ENCODINGS = ("utf-8", "cp1252", "ascii", "koi8-r", "utf-16")
CONSOLES = ({}, {"TERM": "dumb"}, {"COLUMNS": "1"}, {"COLUMNS": "0"}, {"FORCE_COLOR": "1"}, {"PYTHONUNBUFFERED": "1"})
REDIRECTIONS = {
    "": 0,
    "2>&-": 0,
    "2>/dev/full": 0,
    "<&-": 0,
    "| head -1; exit ${PIPESTATUS[0]}": 0,
    "| true; exit ${PIPESTATUS[0]}": 0,
    ">/dev/full": 74,
    ">&-": 74,
    ">/dev/full 2>/dev/full": 74,
    "<&- >&- 2>&-": 74,
}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("console", CONSOLES, ids=str)
def test_every_console(tmp_path, encoding, console):
    copy, other = tmp_path / "кот.safetensors", tmp_path / "😀.safetensors"
    copy.write_bytes((vignette.concept_file("anna", method="orthogonal")).read_bytes())
    commands = {f'inspect "{copy}"': 0, f'inspect --json "{copy}"': 0, "--help": 0, f'inspect "{other}"': 2, "teach": 2}
    for (words, code), (redirection, left) in product(commands.items(), REDIRECTIONS.items()):
        done = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -m orthoplex {words} {redirection}'],
            capture_output=True,
            env={**os.environ, **console, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == (code or left), (words, redirection, done)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
        assert done.stderr.count(b"Error:") <= 2
