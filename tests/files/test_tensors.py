"""Safetensors files, written by hand."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from orthoplex.errors import OutputError
from orthoplex.files import read_header, tensors, write_tensors

TENSORS = {
    "b": torch.arange(6.0).view(2, 3).T,
    "a": torch.ones(3, dtype=torch.float16),
    "c": torch.tensor([True, False]),
    "d": torch.arange(4),
    "e": torch.ones(2, dtype=torch.bfloat16),
    "f": torch.arange(3, dtype=torch.int8),
    "g": torch.ones(2, dtype=torch.float8_e4m3fn),
}


def test_what_is_written_is_read_back(tmp_path):
    write_tensors(TENSORS, tmp_path / "new" / "a.safetensors", {"what": "é"})
    again = load_file(tmp_path / "new" / "a.safetensors")
    assert again.keys() == TENSORS.keys()
    assert all(again[name].dtype == values.dtype for name, values in TENSORS.items())
    assert all(torch.equal(again[name].float(), values.float()) for name, values in TENSORS.items())
    header = read_header(tmp_path / "new" / "a.safetensors")
    header.check_whole(tmp_path)
    assert header.metadata == {"what": "é"}


def test_tensors_stand_in_the_order_of_the_library(tmp_path):
    plain = {name: values.contiguous() for name, values in TENSORS.items() if name in ("a", "b", "d")}
    write_tensors(plain, tmp_path / "ours.safetensors")
    save_file(plain, tmp_path / "theirs.safetensors")
    ours, theirs = (read_header(tmp_path / f"{name}.safetensors").entries for name in ("ours", "theirs"))
    assert {name: entry.start for name, entry in ours.items()} == {name: entry.start for name, entry in theirs.items()}


def test_equal_content_is_equal_bytes(tmp_path):
    write_tensors(TENSORS, tmp_path / "a.safetensors", {"x": "1", "y": "2"})
    write_tensors(dict(reversed(TENSORS.items())), tmp_path / "b.safetensors", {"y": "2", "x": "1"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_failing_write_leaves_nothing(tmp_path, monkeypatch):
    def failing(tensor):
        raise OSError("disk full")

    monkeypatch.setattr(tensors, "tensor_bytes", failing)
    with pytest.raises(OutputError, match="a.safetensors cannot be written: disk full"):
        write_tensors(TENSORS, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
