"""Fixtures that every room's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orthoplex.models import Base, load_base
from tests.pico import build_pico
from tests.pico_xl import build_pico_xl


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors are fastest on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and what they start, store nothing in the user's cache folder, and find nothing in it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("USERPROFILE", str(home))
        yield


@pytest.fixture(scope="session")
def pico_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary pipeline folder with random weights; read only."""
    return build_pico(tmp_path_factory.mktemp("pico") / "pipeline")


@pytest.fixture(scope="session")
def shared_pico(pico_folder: Path) -> Base:
    """The pico base, loaded once; use ``pico``."""
    return load_base(pico_folder)


@pytest.fixture
def pico(shared_pico: Base) -> Iterator[Base]:
    """The pico base in float32; whatever a test puts in must be out again when it ends."""
    yield shared_pico
    assert shared_pico.recipe is None, "a test left something folded in"
    assert shared_pico.tokens == (), "a test left tokens in"


@pytest.fixture(scope="session")
def pico_xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary folder of Stable Diffusion XL with random weights; read only."""
    return build_pico_xl(tmp_path_factory.mktemp("pico-xl") / "pipeline")


@pytest.fixture(scope="session")
def shared_pico_xl(pico_xl_folder: Path) -> Base:
    """The pico Stable Diffusion XL, loaded once; use ``pico_xl``."""
    return load_base(pico_xl_folder)


@pytest.fixture
def pico_xl(shared_pico_xl: Base) -> Iterator[Base]:
    """The pico Stable Diffusion XL in float32; whatever a test puts in must be out again when it ends."""
    yield shared_pico_xl
    assert shared_pico_xl.recipe is None, "a test left something folded in"
    assert shared_pico_xl.tokens == (), "a test left tokens in"
