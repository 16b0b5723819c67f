"""What the denoiser learns from: the latents, captions and boxes of a collection and of many more composites.

The collection's pictures are kept as pixels and half of them are painted, which takes long. The composites are not
painted; only their latents are kept, so there can be a few hundred thousand of them, and the denoiser meets each a few
times only: a caption that comes with few pictures is soon learned by heart, place and drawing included.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from pretraining import autoencoder, captions, pictures, tokenizer
from pretraining.checkpoint import save
from pretraining.compose import GRID, SIZE, Factors, compose
from pretraining.denoiser import TrainingSet
from pretraining.seeds import COMPOSITES

CAPTIONS_PER_PICTURE = 4
#: pictures of the collection that a latent space is fitted on
FITTED = 4000
#: composites that one process makes at a time
SHARD = 2500


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


def _examples(
    data: np.ndarray, rows: Sequence[Factors], seed: int, words: CLIPTokenizer, pca: autoencoder.PatchPca
) -> dict[str, Tensor]:
    """Latents, token numbers and boxes of pictures (n, 128, 128, 3)."""
    rng = random.Random(f"captions/{seed}")
    texts = [captions.caption(row, rng) for row in rows for _ in range(CAPTIONS_PER_PICTURE)]
    ids = words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return {
        "latents": torch.cat(
            [pca.encode(autoencoder.picture_tensor(part)).half() for part in np.array_split(data, 24)]
        ),
        "ids": ids.reshape(len(rows), CAPTIONS_PER_PICTURE, -1).to(torch.int16),
        "inside": torch.stack([inside_boxes(row) for row in rows]),
    }


def _composites(arguments: tuple[int, int, Path]) -> dict[str, Tensor]:
    """Composites `start` to `stop`, never painted."""
    start, stop, work = arguments
    torch.set_num_threads(1)
    made, rows = zip(*(compose(COMPOSITES, index, styled=0.0) for index in range(start, stop)), strict=True)
    words = CLIPTokenizer.from_pretrained(work / "tokenizer")
    pca = autoencoder.PatchPca.load(work)
    return _examples(np.stack([np.asarray(picture) for picture in made]), rows, start, words, pca)


def prepare(work: Path, composites: int, workers: int | None = None) -> TrainingSet:
    """The collection under `work` and so many composites; made once for the same pictures and words, then read."""
    data, factors = pictures.load(work / "pictures")
    pca = patch_pca(work, data)
    words = tokenizer.build(work / "tokenizer")
    vocabulary = tokenizer.vocabulary_hash(words)
    grammar = Path(str(captions.__file__)).read_text()
    told = (vocabulary, CAPTIONS_PER_PICTURE, composites, pictures.source(COMPOSITES), grammar, factors)
    key = hashlib.sha256(repr(told).encode() + data.tobytes() + pca.components.numpy().tobytes())
    cache = work / f"latents-{key.hexdigest()[:16]}.pt"
    if not cache.exists():
        parts = [_examples(data, factors, -1, words, pca)]
        jobs = [(start, min(start + SHARD, composites), work) for start in range(0, composites, SHARD)]
        with ProcessPoolExecutor(workers, mp_context=torch.multiprocessing.get_context("spawn")) as pool:
            for part in pool.map(_composites, jobs):
                parts.append(part)
                print(f"{len(parts) - 1}/{len(jobs)} parts of the composites", flush=True)
        save(cache, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    examples = torch.load(cache, weights_only=True)
    return TrainingSet(**examples, vocabulary=vocabulary, latent_space=pca.key, collection=len(data))
