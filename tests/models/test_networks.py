"""Errors of the libraries that load networks are one line, which says what is wrong and leaves nothing out."""

import json
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


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ({"mid_block.scale_weight": torch.ones(1)}, "the weights are quantised; allowed are plain ones"),
        ({"mid_block.lora_A.weight": torch.ones(1, 2)}, "an adapter was left in it; allowed is the network alone"),
        ({"more.weight": torch.ones(2)}, "allowed are the weights of unet/config.json"),
    ],
)
def test_tensors_without_a_place_are_refused(folder, added, expected):
    path = folder / "unet" / f"{stem('unet')}.safetensors"
    save_file({**load_file(path), **added}, path)
    with pytest.raises(BaseModelError, match=f"holds 1 tensors that its unet has not: {next(iter(added))}; {expected}"):
        load_base(folder)


def test_whole_numbers_in_the_place_of_weights_are_refused(folder):
    path = folder / "unet" / f"{stem('unet')}.safetensors"
    save_file({name: values.to(torch.int8) for name, values in load_file(path).items()}, path)
    with pytest.raises(BaseModelError, match="holds whole numbers in the place of weights"):
        load_base(folder)


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_a_scheduler_of_a_learned_variance_is_refused(folder, variance):
    path = folder / "scheduler" / "scheduler_config.json"
    values = json.loads(path.read_text()) | {"_class_name": "DPMSolverMultistepScheduler", "variance_type": variance}
    path.write_text(json.dumps(values))
    index = folder / "model_index.json"
    names = json.loads(index.read_text()) | {"scheduler": ["diffusers", "DPMSolverMultistepScheduler"]}
    index.write_text(json.dumps(names))
    with pytest.raises(BaseModelError, match=f"scheduler variance_type is '{variance}'; allowed are fixed ones"):
        load_base(folder)
