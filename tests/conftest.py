"""Fixtures that every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.pico import build_pico


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors are fastest on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pico_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary pipeline folder with random weights; read only."""
    return build_pico(tmp_path_factory.mktemp("pico") / "pipeline")
