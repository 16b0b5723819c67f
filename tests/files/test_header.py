"""Headers of safetensors files of any data type, and whether the rest of the file fits."""

import json

import pytest
import torch
from safetensors.torch import save_file

from orthoplex.errors import FileFormatError
from orthoplex.files import read_header


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "some.safetensors"
    save_file({"a": torch.ones(2, 3), "n": torch.arange(5)}, path, metadata={"format": "pt"})
    return path


def rewrite(path, name, **values):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[name].update(values)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_any_data_type_is_read(path):
    header = read_header(path)
    header.check_whole(path)
    assert {name: (entry.dtype, entry.shape) for name, entry in header.entries.items()} == {
        "a": ("F32", (2, 3)),
        "n": ("I64", (5,)),
    }
    assert header.metadata == {"format": "pt"} and header.file_bytes == header.data_start + 64


def test_a_data_type_that_is_no_text_is_refused(path):
    rewrite(path, "a", dtype=[])
    with pytest.raises(FileFormatError, match=r"tensor 'a' has data type '\[\]', allowed are names of data types"):
        read_header(path)


def test_a_shape_that_takes_other_bytes_is_named(path):
    rewrite(path, "a", shape=[2, 4])
    with pytest.raises(FileFormatError, match=r"tensor 'a' of shape \(2, 4\) takes 32 bytes of F32, the header gives"):
        read_header(path).check_whole(path)


@pytest.mark.parametrize(("change", "damage"), [(lambda b: b[:-1], "truncated"), (lambda b: b + b"x", "has bytes aft")])
def test_a_file_that_ends_too_early_or_too_late_is_refused(path, change, damage):
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FileFormatError, match=f"{damage}.*: holds 6[35] bytes of tensors, the header announces 64"):
        read_header(path).check_whole(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileFormatError, match="is a folder, allowed is a safetensors file"):
        read_header(tmp_path)


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_starts_as_a_pickle_does_is_read(path, length):
    text = b"{}".ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + text)
    header = read_header(path)
    header.check_whole(path)
    assert header.entries == {} and header.data_start == 8 + length


def test_tensors_that_share_bytes_are_refused(path):
    rewrite(path, "a", data_offsets=[16, 40])
    with pytest.raises(FileFormatError, match="tensor 'a' starts at byte 16 of the tensors, allowed is 40, where"):
        read_header(path).check_whole(path)


def test_a_name_that_cannot_be_shown_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    text = json.dumps({"a\u202e\n": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileFormatError, match=r"tensor 'a\\u202e\\n' has characters that cannot be shown"):
        read_header(path)
