"""Weights that are not finite in memory are refused, whatever was loaded before."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.models import finite_weights, hash_cache, load_base, loading
from orthoplex.models.base_folder import check_weight_files
from orthoplex.models.finite_weights import check_finite
from orthoplex.models.problems import problems_of
from orthoplex.models.weight_files import find_weights, stem

COMPONENTS = ("unet", "vae", "text_encoder")


@pytest.fixture
def folder(pico_folder, tmp_path, monkeypatch):
    """A copy of the pipeline folder, whose hash is remembered at once."""
    monkeypatch.setattr(hash_cache, "_RACE_NS", 0)
    monkeypatch.setattr(hash_cache, "cache_file", lambda: tmp_path / "hashes.json")
    return shutil.copytree(pico_folder, tmp_path / "base")


def change(folder, component, number, dtype=None):
    """Put a number into the first weight of a component, all of whose weights get a type."""
    path = folder / component / f"{stem(component)}.safetensors"
    tensors = {name: values.to(dtype or values.dtype) for name, values in load_file(path).items()}
    tensors[sorted(tensors)[0]].view(-1)[0] = number
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(folder, dtype=torch.float32):
    with pytest.raises(BaseModelError) as caught:
        load_base(folder, dtype=dtype)
    assert "\n" not in str(caught.value)
    return problems_of(caught.value)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    ("stored", "number", "dtype"),
    [
        (torch.float32, 1e5, torch.float16),
        (torch.bfloat16, 1e5, torch.float16),
        (torch.float32, 3.4028e38, torch.bfloat16),
    ],
)
def test_a_narrower_type_than_before_is_checked(folder, component, stored, number, dtype):
    change(folder, component, number, stored)
    base = load_base(folder)
    assert base.family.changed == ("unet", "text_encoder")
    (line,) = refusal(folder, dtype)
    assert line.startswith(f"base '{folder}': {component}.")
    assert line.endswith(f"holds numbers that are not finite as {dtype}; allowed are finite weights")


@pytest.mark.parametrize("component", COMPONENTS)
def test_weights_that_are_replaced_after_loading_are_checked(folder, component):
    load_base(folder)
    change(folder, component, float("nan"))
    (line,) = refusal(folder)
    assert f"base '{folder}': {component}." in line and "not finite as torch.float32" in line


def test_every_network_with_such_weights_has_a_line(folder):
    for component in COMPONENTS:
        change(folder, component, float("-inf"))
    assert [line.partition("': ")[2].partition(".")[0] for line in refusal(folder)] == ["vae", "text_encoder", "unet"]


def test_known_weights_are_not_checked_again(folder, monkeypatch):
    checked = []
    monkeypatch.setattr(finite_weights, "_check", lambda component, *parts: checked.append(component))
    for _ in range(2):
        load_base(folder)
    assert checked == ["vae", "text_encoder", "unet", "vae"]


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_networks_are_not_looked_at_where_their_files_say_all(folder, monkeypatch, stored):
    change(folder, "unet", 1.0, stored)
    monkeypatch.setattr(finite_weights, "has_plain_numbers", lambda values: pytest.fail("looked at"))
    load_base(folder)
    change(folder, "unet", float("nan"))
    with pytest.raises(pytest.fail.Exception, match="looked at"):
        load_base(folder)


def test_numbers_that_no_network_reads_are_not_asked(folder):
    path = folder / "text_encoder" / "model.safetensors"
    save_file(load_file(path) | {"logit_scale": torch.tensor(float("inf"))}, path, metadata={"format": "pt"})
    load_base(folder)


def test_finite_weights_with_an_infinite_sum_are_taken():
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.fill_(3e38)
    check_finite({"unet": network}, {})
    network.register_buffer("shares", torch.tensor([float("nan")]))
    with pytest.raises(BaseModelError, match=r"unet\.shares holds numbers that are not finite as torch\.float32"):
        check_finite({"unet": network}, {})


@pytest.mark.parametrize(
    ("stored", "dtype", "expected"),
    [
        (torch.float16, torch.float16, True),
        (torch.float16, torch.bfloat16, True),
        (torch.bfloat16, torch.float16, False),
        (torch.bfloat16, torch.float32, True),
        (torch.float32, torch.bfloat16, False),
        (torch.float32, torch.float32, True),
        (torch.float64, torch.float32, False),
        (torch.int64, torch.float16, True),
    ],
)
def test_which_types_hold_all_numbers_of_a_file(folder, stored, dtype, expected):
    save_file({"weight": torch.zeros(2, dtype=stored)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    headers = check_weight_files("unet", folder / "unet", find_weights(folder / "unet", "unet"))
    assert loading._holds_all(dtype, headers) is expected
    assert not loading._holds_all(dtype, None) and not loading._holds_all(torch.int8, headers)
