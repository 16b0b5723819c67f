"""Thousands of damaged and foreign files: each is refused in one line, or read."""

import random

import pytest

from orthoplex import vignette
from orthoplex.concepts import load_concept, read_manifest
from orthoplex.errors import ConceptFileError

STARTS = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"PK\x03\x04",
    b"\x80\x02}",
    b"<html>",
    b"{",
    b"GGUF",
    b"version https://git-lfs",
    b"\0",
)


def damaged(source: bytes, chance: random.Random) -> bytes:
    """A concept file with bytes changed, cut out, put in, or cut off, or bytes that are no file at all."""
    match chance.randrange(5):
        case 0:
            return chance.choice(STARTS) + chance.randbytes(chance.randrange(400))
        case 1:
            return source[: chance.randrange(len(source))]
        case 2:
            place = chance.randrange(4000)
            return source[:place] + chance.randbytes(chance.randrange(1, 9)) + source[place + chance.randrange(9) :]
        case 3:
            data = bytearray(source)
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(6000)] = chance.randrange(256)
            return bytes(data)
        case _:
            return source + chance.randbytes(chance.randrange(1, 50))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_every_damage_is_one_line(tmp_path, seed):
    chance, path = random.Random(seed), tmp_path / "anna.safetensors"
    source = vignette.concept_file("anna", method="orthogonal").read_bytes()
    refusals = 0
    for _ in range(300):
        path.write_bytes(damaged(source, chance))
        for read in (read_manifest, load_concept):
            try:
                read(path)
            except ConceptFileError as error:
                refusals += 1
                assert str(error).startswith(f"{path}: ") and len(str(error)) > len(f"{path}: ")
    assert refusals > 300
