"""What the door loads: help, completion and manifests come without the libraries that models need."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from orthoplex import vignette
from orthoplex.adapters import METHODS
from orthoplex.adapters.adapter import Basis
from orthoplex.benchmark import settings
from orthoplex.evaluation import PRETRAINED
from orthoplex.merging import AUTO
from orthoplex.models import Precision
from orthoplex.options import names
from orthoplex.training import PRESETS

VERBS = tuple("check train silence adopt conflicts merge generate inspect convert rename evaluate demo bench".split())
HEAVY = ("torch", "diffusers", "transformers", "numpy", "safetensors", "PIL", "matplotlib", "peft", "accelerate")
SHIPPED = str(vignette.concept_file("anna", method="orthogonal"))
RUNNER = """
import json, sys
from pathlib import Path
from orthoplex.__main__ import main
report, sys.argv = sys.argv[1], ["orthoplex", *sys.argv[2:]]
try:
    main()
except SystemExit as left:
    code = left.code or 0
Path(report).write_text(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def call(folder: Path, *arguments: str, **environment: str):
    """Run the command in a process of its own; returns its exit code, what it loaded, and its outputs."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(report), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    code, loaded = json.loads(report.read_text())
    return code, {name for name in HEAVY if name in loaded}, done


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "Usage: orthoplex"),
        (["--help"], 0, "inspect"),
        (["--version"], 0, "diffusers"),
        (["inspect", SHIPPED], 0, "<anna> person"),
        (["inspect", SHIPPED, "--json"], 0, '"trigger": "<anna> person"'),
        (["inspect", "nowhere.safetensors"], 2, "there is no such file"),
        (["inspect", str(Path(__file__))], 2, "is not a safetensors file"),
        (["inspect", str(vignette.head_file("scene"))], 2, "is no LoRA file"),
        (["inspect"], 2, "Missing argument"),
        (["teach"], 2, "No such command"),
        (["train", "--steps", "many"], 2, "--steps"),
        *((([verb, "--help"]), 0, "Usage") for verb in VERBS),
    ],
)
def test_the_door_loads_nothing_heavy(tmp_path, arguments, code, text):
    left, heavy, done = call(tmp_path, *arguments)
    assert (left, heavy) == (code, set())
    assert text in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ins", ["inspect"]),
        ("train --met", ["--method"]),
        ("train --method d", ["dual"]),
        ("train --basis ra", ["random"]),
        ("train --kind s", ["subject", "scene", "style"]),
        ("generate x --mixed-precision b", ["bf16"]),
        ("evaluate x --encoder f", ["face"]),
    ],
)
def test_completion(tmp_path, words, found):
    typed = f"orthoplex {words}"
    shell = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    left, heavy, done = call(tmp_path, _ORTHOPLEX_COMPLETE="complete_bash", **shell)
    assert (left, heavy, done.stdout.split()) == (0, set(), found)


def test_completion_can_be_shown_for_a_shell(tmp_path):
    undetected = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    left, heavy, done = call(tmp_path, "--show-completion", "bash", **undetected)
    assert (left, heavy) == (0, set()) and "_ORTHOPLEX_COMPLETE=complete_bash" in done.stdout


def test_names_are_those_of_the_registries():
    assert tuple(METHODS) == names.METHOD_NAMES and tuple(PRESETS) == names.PRESET_NAMES
    assert (names.MOBILENET, *PRETRAINED) == names.ENCODERS
    assert settings.EncoderSettings().kind == names.MOBILENET
    assert get_args(names.Basis) == get_args(Basis) and get_args(names.Precision) == get_args(Precision)
    assert names.AUTO == AUTO


INTERRUPTED = """
import builtins, signal, sys
from orthoplex.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell turns off for what runs behind it
original = builtins.__import__
def importing(name, *others):
    if name == "torch":
        import os
        os.kill(os.getpid(), {signal})
    return original(name, *others)
builtins.__import__ = importing
sys.argv = ["orthoplex", "merge", "anna.safetensors", "--output", "merged"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_end_is_quiet_while_a_verb_imports(number, tmp_path):
    code = INTERRUPTED.replace("{signal}", str(int(number)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted\n")
