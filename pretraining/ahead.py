"""Samples that other processes make ahead of their turn, for a device that is faster than one core composes."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field

import torch

from pretraining.denoiser import Batch
from pretraining.training_set import TrainingSamples

_samples: list[TrainingSamples] = []


@dataclass(eq=False)
class MadeAhead:
    """The batches of `samples` up to number `end`, composed by `workers` processes while earlier ones are learned from.

    Batches are asked for one after the other and all of one size. Painted pictures are begun a few shards ahead, so
    that no two workers want the same one.
    """

    samples: TrainingSamples
    workers: int
    end: int
    batches_ahead: int = 64
    _batches: dict[int, Future[Batch]] = field(default_factory=dict)
    _shards: dict[int, Future[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self.workers, context, initializer=_open, initargs=(self.samples,))

    @property
    def vocabulary(self) -> str:
        """Which tokens the ids mean; a hash."""
        return self.samples.vocabulary

    @property
    def latent_space(self) -> str:
        """Which latents these are; a hash."""
        return self.samples.latent_space

    def batch(self, start: int, stop: int) -> Batch:
        """The samples numbered `start` to `stop`."""
        size = stop - start
        for first in range(start, min(start + self.batches_ahead * size, max(self.end, stop)), size):
            if first not in self._batches:
                self._paint(first + size)
                self._batches[first] = self._pool.submit(_batch, first, first + size)
        return self._batches.pop(start).result()

    def _paint(self, sample: int) -> None:
        """Begin the shards of a sample's window, and those that enter it next; wait for the former."""
        painted = self.samples.painted
        shards = painted.shards(sample)
        for shard in range(shards.start, shards.stop + self.workers):
            if shard not in self._shards:
                self._shards[shard] = self._pool.submit(_paint, shard)
        for shard in shards:
            self._shards[shard].result()
        self._shards = {shard: future for shard, future in self._shards.items() if shard >= shards.start}


def _open(samples: TrainingSamples) -> None:
    torch.set_num_threads(1)
    _samples[:] = [samples]


def _batch(start: int, stop: int) -> Batch:
    return _samples[0].batch(start, stop)


def _paint(shard: int) -> None:
    _samples[0].painted.ensure(shard)
