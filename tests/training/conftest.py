"""Pictures, a base and a configuration small enough for every test of training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthoplex.models import Base, load_base
from orthoplex.training import ConceptDataset, TrainingConfig


def write_pictures(folder: Path, count: int = 4, *, size: tuple[int, int] = (40, 36)) -> Path:
    """Write ``count`` different noise pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    for number in range(count):
        pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@pytest.fixture(scope="module")
def base(pico_folder: Path) -> Base:
    return load_base(pico_folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ConceptDataset:
    pictures = write_pictures(tmp_path_factory.mktemp("training") / "pictures")
    return ConceptDataset.from_folder(pictures, resolution=32, token="<anna>", class_word="person", kind="person")


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig(
        steps=6,
        batch_size=3,
        slots=4,
        layers="attention",
        erasure_form="activation",
        mixed_precision="no",
        sample_every=0,
        flip=True,
        erasure=1.0,
        erasure_prompts=8,
        prior_pictures=2,
        prior_inference_steps=1,
        num_inference_steps=2,
        thumbnail="photo",
    )
