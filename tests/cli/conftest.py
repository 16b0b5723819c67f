"""A runner, pictures and two finished concepts for the tests of the command line."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from orthoplex.cli import app
from orthoplex.files.interrupt import INTERRUPTS

QUICK = ["steps=2", "batch_size=2", "slots=4", "sample_every=0", "num_inference_steps=1"]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals are handled after a test as they were before."""
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


Run = Callable[..., Result]


def quick_options() -> list[str]:
    return [part for entry in QUICK for part in ("--set", entry)]


@pytest.fixture(scope="session")
def run() -> Run:
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "pictures"
    folder.mkdir()
    random = np.random.default_rng(3)
    for number in range(3):
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def concepts(run: Run, pictures: Path, pico_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("concepts")
    made = {}
    for slot, (name, class_word) in enumerate((("anna", "person"), ("rex", "dog"))):
        made[name] = folder / f"{name}.safetensors"
        options = ["--class-word", class_word, "--base", pico_folder, "--slot", slot, "--erasure", 0]
        options += ["--output", made[name]]
        result = run("train", pictures, "--name", name, *options, *quick_options())
        assert result.exit_code == 0, result.stderr
    return made
