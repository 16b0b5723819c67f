"""Warnings are silent inside, whatever the threads do, and shown again outside."""

import warnings
from threading import Barrier, Event, Thread

import pytest
from PIL import Image, PngImagePlugin

from orthoplex.files import read_picture, without_warnings

SECONDS = 10.0


def test_warnings_are_shown_again_when_the_last_has_left():
    before = list(warnings.filters)
    with without_warnings():
        with without_warnings():
            warnings.warn("inner", stacklevel=1)
        warnings.warn("outer", stacklevel=1)
    assert list(warnings.filters) == before


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("first", ["the picture", "the base"])
def test_a_picture_that_is_read_while_a_base_is_loaded_leaves_the_filters_alone(picture, monkeypatch, first):
    before, begun, go = list(warnings.filters), Event(), Event()
    load = PngImagePlugin.PngImageFile.load

    def waiting(image):
        begun.set()
        assert go.wait(SECONDS)
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", waiting)
    reading = Thread(target=read_picture, args=(picture,))
    if first == "the picture":
        reading.start()
        assert begun.wait(SECONDS)
        with without_warnings():
            go.set()
            reading.join(SECONDS)
            warnings.warn("of a library", stacklevel=1)
    else:
        with without_warnings():
            reading.start()
            assert begun.wait(SECONDS)
        go.set()
        reading.join(SECONDS)
    assert list(warnings.filters) == before


def test_two_pictures_are_decoded_at_once(picture, monkeypatch):
    both, load, sizes = Barrier(2, timeout=SECONDS), PngImagePlugin.PngImageFile.load, []

    def waiting(image):
        both.wait()
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", waiting)
    threads = [Thread(target=lambda: sizes.append(read_picture(picture).size)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sizes == [(6, 4), (6, 4)]
