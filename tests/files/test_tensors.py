"""Safetensors files, written by hand."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from orthoplex.errors import FileFormatError, OutputError
from orthoplex.files import read_header, read_tensors, tensors, write_tensors

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


def test_tensors_are_read_into_memory_of_their_own(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(TENSORS | {"none": torch.zeros(0, 3), "one": torch.tensor(2.5)}, path)
    header = read_header(path)
    found = read_tensors(path, header, ["one", "b", "g", "none", "c"])
    assert list(found) == ["one", "b", "g", "none", "c"] and found["none"].shape == (0, 3)
    assert found["one"] == 2.5 and torch.equal(found["b"], TENSORS["b"]) and torch.equal(found["c"], TENSORS["c"])
    assert found["g"].dtype == torch.float8_e4m3fn
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(found["b"], TENSORS["b"])


def test_tensors_of_no_type_and_of_another_file_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(TENSORS, path)
    header = read_header(path)
    odd = replace(header, entries={"a": replace(header.entries["a"], dtype="F4")})
    with pytest.raises(FileFormatError, match="a.safetensors: tensor 'a' is F4, allowed are F16, BF16, F32"):
        read_tensors(path, odd, ["a"])
    last = max(header.entries, key=lambda name: header.entries[name].end)
    long = replace(header.entries[last], start=header.file_bytes)
    with pytest.raises(FileFormatError, match="ends within tensor '.'; copy or download it again"):
        read_tensors(path, replace(header, entries={last: long}), [last])
    write_tensors(TENSORS | {"more": torch.ones(2)}, path)
    with pytest.raises(FileFormatError, match="was replaced while it was read"):
        read_tensors(path, header, ["a"])
