"""Several processes fill one work folder; what an experiment reports is then read from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from orthoplex.benchmark.events import BenchmarkEvent, Stage
from orthoplex.benchmark.experiment import Experiment, load_experiment
from orthoplex.benchmark.measurement import References, read_references
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.study import Study, finished
from orthoplex.benchmark.workspace import Workspace
from orthoplex.models import load_base


@dataclass(frozen=True)
class Job:
    """A training of one concept, or, without a concept, the pictures of a variant."""

    variant: int
    seed: int
    concept: int | None = None


def training_jobs(experiment: Experiment) -> list[Job]:
    """One job for every training that differs; variants that train alike share theirs."""
    jobs: dict[object, Job] = {}
    for seed in experiment.seeds:
        for v, variant in enumerate(experiment.variants):
            for c, concept in enumerate(experiment.concepts):
                key = (concept.name, experiment.training_config(variant, concept, seed))
                jobs.setdefault(key, Job(v, seed, c))
    return list(jobs.values())


def picture_jobs(experiment: Experiment) -> list[Job]:
    """One job for every variant and seed."""
    return [Job(v, seed) for seed in experiment.seeds for v in range(len(experiment.variants))]


def fill(path: Path, work: Path, processes: int) -> Generator[BenchmarkEvent, None, None]:
    """Train and picture what an experiment misses in the work folder, in several processes of equal shares of threads.

    Raises:
        OrthoplexError: What the first failing job raised.
    """
    experiment = load_experiment(path)
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(path, work, threads)
    ) as pool:
        yield from _all(pool, "train", _train, training_jobs(experiment))
        yield from _all(pool, "pictures", _picture, picture_jobs(experiment))


def _all(
    pool: ProcessPoolExecutor, stage: Stage, task: Callable[[Job], None], jobs: Sequence[Job]
) -> Generator[BenchmarkEvent, None, None]:
    futures = [pool.submit(task, job) for job in jobs]
    try:
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            yield BenchmarkEvent(stage, done, len(jobs), f"{len(jobs)} jobs side by side")
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


@dataclass(frozen=True)
class _Worker:
    """What a process keeps between jobs."""

    experiment: Experiment
    workspace: Workspace
    references: dict[str, References]

    def study(self, job: Job) -> Study:
        """The job's variant and seed, ready to train and picture."""
        encoder = self.experiment.encoder.build()
        return Study(self.experiment, self.workspace, encoder, self.experiment.variants[job.variant], job.seed)

    def concepts(self, job: Job) -> tuple[ConceptSource, ...]:
        """Which concepts the job is about."""
        every = self.experiment.concepts
        return every if job.concept is None else (every[job.concept],)


_worker: _Worker | None = None


def _begin(path: Path, work: Path, threads: int) -> None:
    global _worker  # noqa: PLW0603  (a process of the pool has no other place for what its jobs share)
    torch.set_num_threads(threads)
    experiment = load_experiment(path)
    references = read_references(experiment.concepts, experiment.encoder.build())
    _worker = _Worker(experiment, Workspace(load_base(experiment.base), work), references)


def _train(job: Job) -> None:
    assert _worker is not None
    finished(_worker.study(job).train(_worker.concepts(job)))


def _picture(job: Job) -> None:
    assert _worker is not None
    study = _worker.study(job)
    files = finished(study.train(_worker.concepts(job)))
    finished(study.measure(files, _worker.references))
