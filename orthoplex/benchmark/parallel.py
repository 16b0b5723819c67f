"""Several processes fill one work folder; what an experiment reports is then read from it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from orthoplex.benchmark.events import BenchmarkEvent, Stage
from orthoplex.benchmark.experiment import Choices, Experiment
from orthoplex.benchmark.measurement import References
from orthoplex.benchmark.study import Study, finished
from orthoplex.benchmark.text_readers import text_reader
from orthoplex.benchmark.workspace import Workspace
from orthoplex.errors import OrthoplexError

GRACE_SECONDS = 60.0
"""Time for a process to stop, long enough to write the checkpoint of a training."""


@dataclass(frozen=True)
class Job:
    """A training of one concept, or, without a concept, the pictures of a variant; by place in the experiment."""

    variant: int
    seed: int
    concept: int | None = None


@dataclass(frozen=True)
class Task:
    """The data of every process: the jobs of one stage, and their experiment, references and work folder."""

    stage: Stage
    jobs: tuple[Job, ...]
    experiment: Experiment
    choices: Choices
    references: Mapping[str, References]
    work: Path
    threads: int

    def run(self, job: Job, study: Study) -> None:
        """Do one job; its results stay in the work folder."""
        concepts = self.experiment.trained
        files = finished(study.train(concepts if job.concept is None else (concepts[job.concept],)))
        if job.concept is None:
            finished(study.results(files, self.references))


def training_jobs(experiment: Experiment) -> tuple[Job, ...]:
    """One job for every training that differs; variants that train alike share theirs."""
    jobs: dict[object, Job] = {}
    for seed in experiment.seeds:
        for v, variant in enumerate(experiment.variants):
            for c, concept in enumerate(experiment.trained):
                key = (concept.name, experiment.training_config(variant, concept, seed))
                jobs.setdefault(key, Job(v, seed, c))
    return tuple(jobs.values())


def picture_jobs(experiment: Experiment) -> tuple[Job, ...]:
    """One job for every variant and seed."""
    return tuple(Job(v, seed) for seed in experiment.seeds for v in range(len(experiment.variants)))


def fill(
    experiment: Experiment, choices: Choices, references: Mapping[str, References], *, work: Path, processes: int
) -> Generator[BenchmarkEvent, None, None]:
    """Train and picture what an experiment misses in the work folder, in processes with equal shares of the threads.

    However it ends, the processes have ended before: a stopped training leaves its checkpoint.

    Raises:
        Exception: What the first failing job raised.
        OrthoplexError: When a process is gone without a word, for lack of memory perhaps.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    training, pictures = training_jobs(experiment), picture_jobs(experiment)
    yield from _side_by_side(Task("train", training, experiment, choices, references, work, threads), processes)
    yield from _side_by_side(Task("pictures", pictures, experiment, choices, references, work, threads), processes)


def _side_by_side(task: Task, processes: int) -> Generator[BenchmarkEvent, None, None]:
    context = get_context("spawn")
    taken, reports = context.Value("i", 0), context.Queue()
    workers = [context.Process(target=_work, args=(task, taken, reports), daemon=True) for _ in range(processes)]
    total = len(task.jobs)
    try:
        for worker in workers:
            worker.start()
        for done in range(1, total + 1):
            error = _next_report(reports, workers)
            if error is not None:
                raise error
            yield BenchmarkEvent(task.stage, done, total, f"{total} jobs side by side")
        for worker in workers:
            worker.join(GRACE_SECONDS)  # they find no job and end
    finally:
        taken.get_obj().value = total  # who starts late finds no job; no lock, which a killed process may hold
        _stop([worker for worker in workers if worker.pid is not None], GRACE_SECONDS)


def _stop(workers: Sequence[Any], grace: float) -> None:
    """Interrupt processes that still run, and kill what has not ended after `grace` seconds."""
    for worker in workers:
        if worker.is_alive():
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGINT)
    deadline = time.monotonic() + grace
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _next_report(reports: Any, workers: Sequence[Any]) -> BaseException | None:  # noqa: ANN401  (untyped in typeshed)
    while True:
        try:
            return reports.get(timeout=1)
        except Empty:
            codes = [worker.exitcode for worker in workers if worker.exitcode]
            if codes:
                return OrthoplexError(f"a process of the experiment ended with exit code {codes[0]}; is memory short?")


def _work(task: Task, taken: Any, reports: Any) -> None:  # noqa: ANN401  (multiprocessing's proxies)
    """Take jobs until none is left; report None for each that is done, or the error that ends all."""
    if os.name == "posix":
        os.setsid()  # Ctrl-C reaches the parent alone, which then stops its processes one by one
    for number in (signal.SIGINT, signal.SIGTERM):  # a script's background starts processes that ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    torch.set_num_threads(task.threads)
    try:
        workspace = Workspace(task.choices.load(task.experiment), task.work)
        encoder = task.experiment.encoder.build()
        text = text_reader(encoder, workspace.base, task.experiment.measured_prompts)
        while (parent := parent_process()) is not None and parent.is_alive():
            with taken.get_lock():
                index = taken.value
                taken.value += 1
            if index >= len(task.jobs):
                return
            job = task.jobs[index]
            variant = task.experiment.variants[job.variant]
            task.run(job, Study(task.experiment, workspace, encoder, text, variant, job.seed))
            reports.put(None)
    except KeyboardInterrupt:  # nobody listens where the parent sent it; else it must not wait for ever
        reports.put(OrthoplexError("a process of the experiment was interrupted; run it again to go on"))
    except OrthoplexError as error:
        reports.put(error)
    except Exception as error:  # noqa: BLE001  (it may not be picklable; its name and words are)
        reports.put(OrthoplexError(f"{type(error).__name__} in a process of the experiment: {error}"))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was reported goes out, though the parent stops all
