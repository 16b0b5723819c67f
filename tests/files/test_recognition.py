"""Files that are no safetensors files are named for what they are, with the cure."""

import io
import pickle
import tarfile
import zipfile
from collections import OrderedDict

import pytest
import torch
from PIL import Image

from orthoplex.errors import FileFormatError
from orthoplex.files import read_header


def picture(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 9, 9)).save(buffer, format=kind)
    return buffer.getvalue()


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in members.items():
            opened.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("a.safetensors"))
    return buffer.getvalue()


def saved(values, **options):
    buffer = io.BytesIO()
    torch.save(values, buffer, **options)
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
EMBEDDING = {"string_to_param": {"*": torch.ones(2)}, "name": "x"}
PAGE = "<!DOCTYPE html>\n<html><title>Sign in</title></html>"
OLD = ({"a": 1}, [1, 2], {"a": [1.5]}, OrderedDict(a=1))
WHOLE = (2).to_bytes(8, "little") + b"{}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is an empty file; the download or the copy did not finish; fetch it again"),
        (b"\0" * 5000, "begins with zeros alone; the download"),
        (POINTER, "is a git-lfs pointer to a file of 12345 bytes, not the file itself; run: git lfs pull"),
        (POINTER.replace(b"\nsize 12345", b""), "is a git-lfs pointer to a file, not"),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "is a web page, not the file itself"),
        (b"\xef\xbb\xbf  <HTML lang='en'>", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        (b'{"error": "Unauthorized"}', 'is JSON text (\'{"error": "Unauthorized"}\'): a site\'s answer or settings'),
        (b"[1,\n2,       3]", "is JSON text ('[1, 2, 3]')"),
        (b'{"a": [' + b"0, " * 40000, 'is JSON text (\'{"a": [0, 0'),
        (b"Entry not found", "is a text file ('Entry not found'), not the file itself"),
        ("ошибка: нет доступа".encode(), "is a text file ('ошибка: нет доступа')"),
        (b"{not json at all}", "is a text file"),
        (picture("PNG"), "it is a picture (PNG)"),
        (picture("JPEG"), "is a picture (JPEG)"),
        (picture("WEBP"), "is a picture (WebP)"),
        (picture("GIF"), "is a picture (GIF)"),
        (picture("BMP"), "is a picture (BMP)"),
        (picture("TIFF"), "is a picture (TIFF)"),
        (b"\0\0\0\x18ftypavif" + b"\1" * 40, "is a picture (AVIF)"),
        (b"\0\0\0\x18ftypheic" + b"\1" * 40, "is a picture (HEIC); save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypisom" + b"\1" * 40, "is a film (MP4 or QuickTime); save single frames as JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a picture (PostScript); save it as JPEG or PNG"),
        (b"<head> person, smiling at night", "is a text file ('<head> person"),
        (b"PK subban smiling", "is a text file ('PK subban smiling')"),
        (b"GGUF\3\0\0\0" + b"\1" * 40, "is a GGUF file"),
        (archive(anna__safetensors="x"), "is an archive (zip); unpack it and name the .safetensors file in it"),
        (b"PK\x03\x04broken" * 9, "is an archive (zip)"),
        (b"\x1f\x8b\x08\0" * 9, "is an archive (gzip)"),
        (b"7z\xbc\xaf\x27\x1c" * 9, "is an archive (7z)"),
        (b"Rar!\x1a\x07\x01\0" * 9, "is an archive (RAR)"),
        (tar(), "is an archive (tar)"),
        (saved({"a": torch.ones(2)}), "holds a pickle and is never opened, allowed is a safetensors file"),
        (saved(EMBEDDING), "never opened (a textual-inversion embedding of another program), allowed"),
        (saved(EMBEDDING, _use_new_zipfile_serialization=False), "a textual-inversion embedding of another"),
        (saved({"emb_params": torch.ones(2)}), "a textual-inversion embedding of another program"),
        (saved({"lora_unet_a.lora_down.weight": torch.ones(2)}), "a LoRA of another program"),
        (saved({"state_dict": {"model.diffusion_model.a": torch.ones(2)}}), "a whole model in one file"),
        (saved({"state_dict": {"a": torch.ones(2)}}), "a checkpoint of another program"),
        (pickle.dumps({"a": 1}), "holds a pickle"),
        (b"ab", "holds 2 bytes, a safetensors file starts with 8 bytes of length; it is a text file ('ab')"),
        (b"\xff\xfe", "holds 2 bytes, a safetensors file starts with 8 bytes of length"),
        (b"%PDF-1.7\n%\xe2\xe3", "is not a safetensors file: it is a PDF document; allowed is a safetensors file"),
        (b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff", "is a program of Windows; allowed is"),
        (b"\x7fELF\2\1\1\0" * 3, "is a program; allowed is"),
        (b"\x93NUMPY\1\0v\0{'descr': '<f4'}", "is an array of NumPy (.npy)"),
        (b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file"),
        (b"\x08\x07\x12\x07pytorch\x1a\x051.9.0", "is a network in the form of ONNX"),
        (b"\x08\x04:\xf0\x01\n", "is a network in the form of ONNX"),
        (b"SQLite format 3\0\x10\0", "is a database (SQLite)"),
        (PAGE.encode("utf-16"), "is a web page, not the file itself"),
        (PAGE.encode("utf-16-le"), "is a web page, not the file itself"),
        ("Zugriff verweigert".encode("utf-16"), "is a text file ('Zugriff verweigert')"),
        (b"<!-- -->\n<html></html>", "is a web page, not the file itself"),
        (b"\x1f\x8b\x08\0\0\0\0\0\2\xff" + b"\1" * 99, "is an archive (gzip); unpack it"),
        (b"\x1f\x8b\x08\0\0\0\0\0\2\xff" + b"\1" * 600_000, "is an archive (gzip); unpack it"),
        *(
            (pickle.dumps(value, protocol), "holds a pickle and is never opened")
            for protocol in (0, 1)
            for value in OLD
        ),
        (b"(a) a woman, smiling at night", "is a text file"),
        (b"(dark, a woman)", "is a text file"),
        (bytes(range(255, 100, -1)), "is no safetensors file (it begins with the bytes ff fe fd fc"),
        (WHOLE[:-1], "truncated: the header ends at byte 10, the file at byte 9; the download or the copy did not"),
    ],
)
@pytest.mark.parametrize("name", ["anna.safetensors", "anna.safetensors.part"])
def test_what_a_file_is_is_said_in_one_line(tmp_path, content, words, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as error:
        read_header(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(EMBEDDING), "; it holds a textual-inversion embedding of another program; a pickle can run any program"),
        (POINTER, "; it is a git-lfs"),
        (WHOLE, ""),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin"])
def test_a_name_of_a_pickle_is_named_with_the_content(tmp_path, content, words, suffix):
    path = tmp_path / f"anna{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as error:
        read_header(path)
    start = f"{path}: '{suffix}' is a pickle format and is never opened, allowed: .safetensors"
    assert str(error.value).startswith(start + words)


def test_folders_are_named_for_what_they_hold(tmp_path):
    def message():
        with pytest.raises(FileFormatError) as error:
            read_header(tmp_path)
        return str(error.value).removeprefix(f"{tmp_path}: ")

    assert message() == "is a folder, allowed is a safetensors file"
    (tmp_path / "b.safetensors").write_bytes(WHOLE)
    first = f"is a folder, allowed is a safetensors file; name each file in it ({tmp_path / 'b.safetensors'})"
    assert message() == first
    (tmp_path / "c.safetensors").write_bytes(WHOLE)
    assert message() == first[:-1] + " and 1 more)"
