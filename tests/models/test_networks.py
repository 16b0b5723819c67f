"""Errors of the libraries that load networks are one line, which says what is wrong and leaves nothing out."""

import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from orthoplex.errors import BaseModelError
from orthoplex.models import load_base
from orthoplex.models.networks import load_network
from orthoplex.models.weight_files import stem


@pytest.fixture
def folder(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may change."""
    return shutil.copytree(pico_folder, tmp_path / "base")


def test_errors_of_the_libraries_are_one_line(folder):
    with pytest.raises(BaseModelError) as caught:
        load_network(UNet2DConditionModel, folder / "scheduler", None, torch.float32)
    assert "\n" not in str(caught.value) and "scheduler cannot be built: " in str(caught.value)


class Raising:
    """A class of networks that cannot be loaded."""

    message = ""

    @classmethod
    def from_pretrained(cls, *arguments, **options):
        raise ValueError(cls.message)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Cannot load x because conv.bias expected shape torch.Size([2, 3]), but got torch.Size([4]). If you want",
            "unet holds tensors of other shapes: conv.bias is (4), allowed is (2, 3)",
        ),
        ("It is 1. It must be 2. Choose.", "unet cannot be built: ValueError: It is 1. It must be 2. Choose."),
        ("v1.5 is not. known", "unet cannot be built: ValueError: v1.5 is not. known"),
        ("two\nlines", "unet cannot be built: ValueError: two lines"),
    ],
)  # fmt: skip
def test_errors_of_values_are_whole_but_for_shapes(folder, monkeypatch, message, expected):
    monkeypatch.setattr(Raising, "message", message)
    with pytest.raises(BaseModelError) as caught:
        load_network(Raising, folder / "unet", None, torch.float32)
    assert str(caught.value) == expected


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_of_another_shape_are_named_alike(folder, component):
    path = folder / component / f"{stem(component)}.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if name.endswith("norm2.bias" if component == "unet" else ".bias"))
    tensors[name] = torch.zeros(3)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BaseModelError) as caught:
        load_base(folder)
    line = str(caught.value)
    assert " tensors of other shapes: " in line and " is (3" in line and "allowed is (" in line and "Size" not in line
