"""Samples depend on their numbers alone, whoever makes them and whenever; painted shards are whole or not there."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from pretraining import training_set
from pretraining.ahead import MadeAhead
from pretraining.autoencoder import LATENTS, PatchPca, fit_pca
from pretraining.compose import Box, Factors, Thing
from pretraining.denoiser import DenoiserConfig
from pretraining.training_set import PaintedPictures, TrainingSamples


@pytest.fixture(scope="module")
def pca() -> PatchPca:
    return fit_pca(np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple]]:
    """What is composed: noise of its number, with a fox; few painted pictures are made at a time."""
    calls: list[tuple] = []

    def compose(seed: int, index: int, *, styled: float, crowd: int, **_: object) -> tuple[Image.Image, Factors]:
        calls.append((seed, index, styled, crowd))
        pixels = np.random.default_rng([seed, index]).integers(0, 255, (128, 128, 3), dtype=np.uint8)
        fox = Thing(Box(16, 24, 96), subject="fox", family="twemoji")
        return Image.fromarray(pixels), Factors((fox,), "a cave", "cubist painting" if styled else None)

    monkeypatch.setattr(training_set, "compose", compose)
    for name, value in {"EVERY": 10, "SHARD": 4}.items():
        monkeypatch.setattr(PaintedPictures, name, value)
    yield calls


def samples(work: Path, pca: PatchPca, share: float = 0.3) -> TrainingSamples:
    words = CLIPTokenizer.from_pretrained("orthoplex/vignette/base/tokenizer")
    return TrainingSamples(words, pca, work, DenoiserConfig(painted_share=share, painted_window=8))


def test_a_sample_is_the_same_in_every_batch_and_after_every_start(tmp_path: Path, pca: PatchPca, drawn: list) -> None:
    whole = samples(tmp_path / "a", pca).batch(0, 60)
    assert whole.latents.shape == (60, LATENTS, 16, 16)
    assert whole.ids.shape == (60, 32)
    assert whole.inside.any((1, 2)).all()
    later = samples(tmp_path / "b", pca)  # another machine
    for start in (40, 20):
        part = later.batch(start, start + 20)
        assert torch.equal(part.latents, whole.latents[start : start + 20])
        assert torch.equal(part.ids, whole.ids[start : start + 20])
    assert len({row.tobytes() for row in whole.latents.numpy()}) > 40


def test_every_composite_is_shown_once_and_people_change(tmp_path: Path, pca: PatchPca, drawn: list) -> None:
    samples(tmp_path, pca).batch(0, 100)
    samples(tmp_path, pca).batch(training_set.CROWD, training_set.CROWD + 100)
    shown = [(index, crowd) for _, index, styled, crowd in drawn if not styled]
    assert len(set(shown)) == len(shown)
    assert 120 < len(shown) < 160  # of 200
    assert {crowd for index, crowd in shown if index < 100} == {0}
    assert {crowd for index, crowd in shown if index >= training_set.CROWD} == {training_set.PEOPLE}


def test_painted_pictures_lie_in_a_window_that_moves_on(tmp_path: Path, pca: PatchPca, drawn: list) -> None:
    painted = PaintedPictures(tmp_path, pca, 8)
    assert [painted.window(sample) for sample in (0, 39, 40, 400)] == [
        range(0, 8), range(0, 8), range(4, 12), range(40, 48)
    ]  # fmt: skip
    assert painted.shards(40) == range(1, 3)
    samples(tmp_path, pca, 1.0).batch(400, 460)
    assert {index for _, index, *_ in drawn} <= set(range(40, 56))  # a fresh start makes what it shows, not what was
    assert sorted(path.name for path in painted.folder.glob("*.pt")) == ["00010.pt", "00011.pt", "00012.pt"]
    made = len(drawn)
    again = PaintedPictures(tmp_path, pca, 8)
    latents, factors = again.picture(45)
    assert len(drawn) == made
    assert factors.style == "cubist painting" and latents.dtype == torch.half


def test_a_shard_whose_maker_was_killed_is_made_again(tmp_path: Path, pca: PatchPca, drawn: list) -> None:
    painted = PaintedPictures(tmp_path, pca, 8)
    child = os.fork()
    if not child:  # dies while it holds the shard's lock
        training_set.compose = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        painted.ensure(0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not list(painted.folder.glob("*.pt"))
    assert torch.equal(painted.picture(2)[0], PaintedPictures(tmp_path / "other", pca, 8).picture(2)[0])


def test_other_pictures_or_latents_are_kept_apart(
    tmp_path: Path, pca: PatchPca, drawn: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = PaintedPictures(tmp_path, pca, 8).folder
    assert PaintedPictures(tmp_path, PatchPca(pca.mean + 1, pca.components), 8).folder != one
    monkeypatch.setattr(training_set.pictures, "source", lambda seed: {"seed": seed, "code": "other"})
    assert PaintedPictures(tmp_path, pca, 8).folder != one


@pytest.mark.parametrize("size", [0, 6])
def test_a_window_holds_whole_shards(tmp_path: Path, pca: PatchPca, drawn: list, size: int) -> None:
    with pytest.raises(ValueError, match=f"the window holds {size} painted pictures; allowed are multiples of 4"):
        PaintedPictures(tmp_path, pca, size)


class Inline:
    """A pool without processes, which notes what it is asked for."""

    def __init__(self, *_: object, initializer: object, initargs: tuple) -> None:
        self.asked: list[tuple] = []
        initializer(*initargs)  # type: ignore[operator]

    def submit(self, function, *arguments):
        self.asked.append((function.__name__, *arguments))
        made = function(*arguments)
        return type("Done", (), {"result": lambda self: made})()


def test_samples_made_ahead_are_the_same_and_every_shard_is_begun_before_it_is_needed(
    tmp_path: Path, pca: PatchPca, drawn: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretraining.ahead.ProcessPoolExecutor", Inline)
    threads = torch.get_num_threads()
    plain = samples(tmp_path / "a", pca)
    ahead = MadeAhead(samples(tmp_path / "b", pca), workers=2, end=110, batches_ahead=3)
    assert (ahead.vocabulary, ahead.latent_space) == (plain.vocabulary, plain.latent_space)
    for start in range(0, 100, 20):
        one, other = plain.batch(start, start + 20), ahead.batch(start, start + 20)
        assert torch.equal(one.latents, other.latents) and torch.equal(one.ids, other.ids)
    asked = ahead._pool.asked
    assert [call[1] for call in asked if call[0] == "_batch"] == list(range(0, 120, 20))
    painted = [call[1] for call in asked if call[0] == "_paint"]
    assert painted == sorted(set(painted))
    torch.set_num_threads(threads)
