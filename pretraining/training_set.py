"""What the denoiser learns from: captioned composites, each made when its turn comes, and painted pictures.

Sample number k of a run depends on k alone: a run that was stopped goes on with the very samples it would have had, and
nothing has to be made before it starts but the first painted pictures. A composite is shown once. Painting takes a
hundred times as long, so painted pictures are made in shards, kept, and shown a few times while they lie in a window
that moves on with the samples.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from filelock import FileLock
from torch import Tensor
from transformers import CLIPTokenizer

from pretraining import autoencoder, captions, pictures, tokenizer
from pretraining.checkpoint import save
from pretraining.compose import GRID, PEOPLE, SIZE, Factors, compose
from pretraining.denoiser import Batch, DenoiserConfig
from pretraining.mix import NEXT
from pretraining.seeds import COMPOSITES, PAINTED

#: pictures of the collection that a latent space is fitted on
FITTED = 4000
#: samples that show the same PEOPLE
CROWD = 200_000


def patch_pca(work: Path, data: np.ndarray) -> autoencoder.PatchPca:
    """The PCA under `work`, fitted on pictures (n, 128, 128, 3) where there is none.

    It outlives a rebuilt collection, so that what was trained in its latent space goes on.
    """
    if not autoencoder.PatchPca.file(work).exists():
        autoencoder.fit_pca(data[:FITTED]).save(work)
    return autoencoder.PatchPca.load(work)


def keep_latent_space(work: Path, initial: Path) -> None:
    """Take the PCA of a pipeline folder, whose networks are gone on from, to `work`.

    What it lacks of today's components is fitted on the collection under `work`.

    Raises:
        ValueError: When another one is there, or the folder's has more components than networks take today.
    """
    pca = autoencoder.PatchPca.of(AutoencoderKL.from_pretrained(initial, subfolder="vae"))
    file, count = autoencoder.PatchPca.file(work), len(pca.components)
    if count > autoencoder.LATENTS:
        raise ValueError(f"{initial} has {count} latent channels; allowed are at most {autoencoder.LATENTS}")
    if not file.exists():
        whole = count == autoencoder.LATENTS
        (pca if whole else autoencoder.extended(pca, pictures.load(work / "pictures")[0][:FITTED])).save(work)
        return
    there = autoencoder.PatchPca.load(work)
    grey = torch.zeros(1, *pca.mean.shape)
    same = torch.allclose(there.components[:count], pca.components, atol=1e-3)
    if not same or not torch.allclose(there.encode(grey)[:, :count], pca.encode(grey), atol=1e-2):
        raise ValueError(f"{file} holds another latent space than {initial}; move it away to go on from that folder")


def inside_boxes(factors: Factors) -> Tensor:
    """(16, 16) bool: the latents whose patches lie in a thing's box, at least in part."""
    inside = torch.zeros(SIZE // GRID, SIZE // GRID, dtype=torch.bool)
    for box in (thing.box for thing in factors.things):
        rows = slice(max(0, box.top // GRID), -(-(box.top + box.side) // GRID))
        inside[rows, max(0, box.left // GRID) : -(-(box.left + box.side) // GRID)] = True
    return inside


class PaintedPictures:
    """Latents and factors of painted pictures by their numbers, in shards of files under a folder.

    A shard is written whole or not at all, by one process at a time, when it is first asked for. The window holds
    `size` pictures, a multiple of SHARD; at sample k it begins with picture k / EVERY.
    """

    EVERY, SHARD = 100, 64

    def __init__(self, work: Path, pca: autoencoder.PatchPca, size: int) -> None:
        if size < self.SHARD or size % self.SHARD:
            raise ValueError(f"the window holds {size} painted pictures; allowed are multiples of {self.SHARD}")
        self.size = size
        made_of = repr((pictures.source(PAINTED), pca.key))
        self.pca, self.folder = pca, work / f"painted-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
        self._open: dict[int, dict] = {}

    def window(self, sample: int) -> range:
        """The numbers of the pictures that are shown at a sample."""
        first = sample // self.EVERY // self.SHARD * self.SHARD
        return range(first, first + self.size)

    def shards(self, sample: int) -> range:
        """The numbers of the shards that hold a sample's window."""
        window = self.window(sample)
        return range(window.start // self.SHARD, window.stop // self.SHARD)

    def ensure(self, shard: int) -> Path:
        """The file of a shard, made where it is missing."""
        file = self.folder / f"{shard:05d}.pt"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):
                if not file.exists():
                    save(file, self._paint(shard))
        return file

    def picture(self, number: int) -> tuple[Tensor, Factors]:
        """Latents (LATENTS, 16, 16), half, and factors."""
        shard, place = divmod(number, self.SHARD)
        if shard not in self._open:
            self._open = {
                kept: value for kept, value in self._open.items() if kept > shard - 2 * self.size // self.SHARD
            }
            self._open[shard] = torch.load(self.ensure(shard), weights_only=True)
        held = self._open[shard]
        return held["latents"][place], Factors.from_row(held["rows"][place])

    def _paint(self, shard: int) -> dict[str, object]:
        numbers = range(shard * self.SHARD, (shard + 1) * self.SHARD)
        made = [compose(PAINTED, number, styled=1.0, mix=NEXT, crowd=number // PEOPLE * PEOPLE) for number in numbers]
        return {
            "latents": _latents([np.asarray(picture) for picture, _ in made], self.pca),
            "rows": [asdict(factors) for _, factors in made],
        }


class TrainingSamples:
    """All samples of a run, by their numbers.

    Attributes:
        vocabulary: Which tokens the ids mean; a hash.
        latent_space: Which latents these are; a hash.
        painted: The painted pictures.
    """

    def __init__(self, words: CLIPTokenizer, pca: autoencoder.PatchPca, work: Path, config: DenoiserConfig) -> None:
        self.vocabulary, self.latent_space = tokenizer.vocabulary_hash(words), pca.key
        self.painted = PaintedPictures(work, pca, config.painted_window)
        self._words, self._pca, self._share = words, pca, config.painted_share

    def batch(self, start: int, stop: int) -> Batch:
        """The samples numbered `start` to `stop`."""
        latents: dict[int, Tensor] = {}
        composed: dict[int, np.ndarray] = {}
        rows, texts = [], []
        for number in range(start, stop):
            rng = random.Random(f"sample/{number}")
            if rng.random() < self._share:
                latents[number], factors = self.painted.picture(rng.choice(self.painted.window(number)))
            else:
                picture, factors = compose(COMPOSITES, number, styled=0.0, mix=NEXT, crowd=number // CROWD * PEOPLE)
                composed[number] = np.asarray(picture)
            rows.append(factors)
            texts.append(captions.caption(factors, rng, NEXT.sided))
        if composed:
            latents |= dict(zip(composed, _latents(list(composed.values()), self._pca), strict=True))
        ids = self._words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        inside = torch.stack([inside_boxes(row) for row in rows])
        return Batch(torch.stack([latents[number] for number in range(start, stop)]), ids, inside)


def _latents(data: list[np.ndarray], pca: autoencoder.PatchPca) -> Tensor:
    """Pictures (128, 128, 3) uint8 -> (n, LATENTS, 16, 16), half."""
    return pca.encode(autoencoder.picture_tensor(np.stack(data))).half()
