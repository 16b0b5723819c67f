"""Eight threads switch and draw on one base: no picture may be another than that of a fresh merge.

    python -m benchmarks.live --output results/live.json

Each thread again and again chooses a set of concepts with strengths from a pool, lets the one blend of the base be that
set, and draws a picture, within the base's lock. One more thread asks for changes without the lock. Every picture is
compared, byte for byte, with that of a fresh merge of its set that another base drew before.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orthoplex import vignette
from orthoplex.benchmark.machine import machine
from orthoplex.concepts import Concept, load_concept
from orthoplex.files import check_writable, write_json
from orthoplex.generation import GenerationProgress, generate
from orthoplex.merging import merge
from orthoplex.models import Base, Blend, load_base

STEPS = 2
"""Denoising steps of a picture: enough to tell pictures apart."""
LIVE_STEPS = 6
"""Denoising steps of a live picture: the change is asked for after the first."""
Strengths = Mapping[str, float]


def pool_of(concepts: Mapping[str, Concept], count: int, seed: int) -> list[tuple[dict[str, float], str]]:
    """Return sets of one to four concepts with strengths, each with a prompt that names one of them."""
    rng, pool = random.Random(seed), []
    for _ in range(count):
        names = rng.sample(list(concepts), rng.randint(1, 4))
        pool.append(
            ({name: rng.choice((0.5, 0.8, 1.0)) for name in names}, f"a photo of {concepts[names[0]].manifest.trigger}")
        )
    return pool


def picture(base: Base, prompt: str, **named: Any) -> bytes:  # noqa: ANN401  (arguments of generate)
    """Return the bytes of a picture."""
    return np.asarray(generate(base, prompt, num_inference_steps=STEPS, expect_names=False, **named)[0]).tobytes()


def fresh_pictures(concepts: Mapping[str, Concept], pool: Sequence[tuple[Strengths, str]]) -> list[bytes]:
    """Return the pictures of fresh merges of the sets alone, drawn by a base that nobody else uses."""
    other, pictures = load_base("vignette"), []
    for strengths, prompt in pool:
        fresh = merge([(concepts[name], strength) for name, strength in strengths.items()], algorithm="sum")
        pictures.append(picture(other, prompt, merge=fresh))
    return pictures


def resident_bytes() -> int:
    """Return the memory of this process, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Records:
    """What the threads did; a list is appended to by many threads at once, and a counter is not."""

    outcomes: list[str] = field(default_factory=list)
    switches: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def add_error(self, error: Exception) -> None:
        """Record an error as an outcome."""
        self.outcomes.append(f"error: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Scene:
    """A base with a blend, what is drawn with it, and what must come out."""

    base: Base
    blend: Blend
    names: Sequence[str]
    pool: Sequence[tuple[Strengths, str]]
    expected: Sequence[bytes]


def draw(scene: Scene, records: Records, number: int, end: float) -> None:
    """Switch and draw until a time."""
    rng = random.Random(number)
    while time.perf_counter() < end:
        chosen = rng.randrange(len(scene.pool))
        strengths, prompt = scene.pool[chosen]
        try:
            with scene.base.locked():
                started = time.perf_counter()
                scene.blend.update({name: strengths.get(name, 0.0) for name in scene.names})
                records.switches.append(time.perf_counter() - started)
                drawn = picture(scene.base, prompt)
            records.outcomes.append("right" if drawn == scene.expected[chosen] else "wrong")
        except Exception as error:  # noqa: BLE001  (every error is a result)
            records.add_error(error)


def ask(scene: Scene, records: Records, end: float) -> None:
    """Ask for changes without the lock until a time."""
    rng = random.Random("asked")
    while time.perf_counter() < end:
        try:
            scene.blend.update({rng.choice(scene.names): rng.choice((0.0, 0.5, 1.0))})
            records.outcomes.append("asked without the lock")
        except Exception as error:  # noqa: BLE001
            records.add_error(error)
        time.sleep(0.05)


def run(scene: Scene, seconds: float, threads: int, reading: float) -> Records:
    """Let the threads work, and read the memory while they do."""
    records, began = Records(), time.perf_counter()
    end = began + seconds
    workers = [threading.Thread(target=draw, args=(scene, records, number, end)) for number in range(threads)]
    workers.append(threading.Thread(target=ask, args=(scene, records, end)))
    for worker in workers:
        worker.start()
    while (now := time.perf_counter()) < end:
        records.memory.append((now - began, resident_bytes()))
        time.sleep(max(0.0, min(reading, end - time.perf_counter())))
    records.memory.append((time.perf_counter() - began, resident_bytes()))  # the threads still work
    for worker in workers:
        worker.join()
    return records


def growth(memory: Sequence[tuple[float, int]]) -> float | None:
    """Return the slope of the memory, in bytes a minute, after the first third; None for fewer than two readings."""
    settled = [(moment / 60, size) for moment, size in memory if moment >= memory[-1][0] / 3]
    if len(settled) < 2:
        return None
    moments, sizes = zip(*settled, strict=True)
    return statistics.linear_regression(moments, sizes).slope


def measure(seconds: float, threads: int, sets: int, live_pictures: int = 10, reading: float = 15.0) -> dict[str, Any]:
    """Draw for some seconds, and count what differs."""
    torch.set_num_threads(1)
    names = [sample.name for sample in vignette.sample_concepts()]
    concepts = {name: load_concept(vignette.concept_file(name, method="orthogonal")) for name in names}
    pool = pool_of(concepts, sets, seed=0)
    expected = fresh_pictures(concepts, pool)
    base = load_base("vignette")
    with base.blend(list(concepts.values()), algorithm="sum") as blend:
        records = run(Scene(base, blend, names, pool, expected), seconds, threads, reading)
    outcomes = Counter(records.outcomes)
    return {
        "seconds": seconds,
        "threads": threads,
        "sets": sets,
        "pictures_that_differ": len(set(expected)),
        "pictures": outcomes["right"] + outcomes["wrong"],
        "wrong": outcomes["wrong"],
        "outcomes": dict(sorted(outcomes.items())),
        "switches": len(records.switches),
        "switch_seconds": {"fastest": min(records.switches), "median": statistics.median(records.switches)},
        "resident_bytes": records.memory,
        "growth_bytes_a_minute_after_a_third": growth(records.memory),
        "live": live(base, concepts, live_pictures),
    }


def live(base: Base, concepts: Mapping[str, Concept], count: int) -> dict[str, Any]:
    """Change the set in the middle of live pictures; say how many changes came between two steps."""
    names, between, right, errors = list(concepts), 0, 0, list[str]()
    with base.blend(list(concepts.values()), algorithm="sum") as blend:
        for number in range(count):
            wanted = names[number % len(names)]
            between += change_within(base, blend, wanted, errors) == [wanted]
            right += dict(blend) == {wanted: 1.0}
            blend.update(dict.fromkeys(names, 1.0))
    return {"pictures": count, "changed_before_the_last_step": between, "sets_as_asked": right, "errors": errors}


def change_within(base: Base, blend: Blend, wanted: str, errors: list[str]) -> list[str]:
    """Ask for a set of one concept after the first step of a live picture, and return the set at its last step."""
    at_the_end = list[str]()

    def tried(action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001
            errors.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=tried, args=(lambda: blend.only(wanted),))

    def progress(now: GenerationProgress) -> None:
        if now.step == 1:
            thread.start()
        if now.step == LIVE_STEPS:
            at_the_end.extend(blend)

    named = {"num_inference_steps": LIVE_STEPS, "live": True, "progress": progress, "expect_names": False}
    tried(lambda: generate(base, "a cat", **named))
    thread.join()
    return at_the_end


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--sets", type=int, default=60)
    parser.add_argument("--live", type=int, default=10, help="live pictures at the end")
    parser.add_argument("--reading", type=float, default=15.0, help="seconds between readings of the memory")
    parser.add_argument("--output", type=Path, default=Path("results/live.json"))
    options = parser.parse_args(arguments)
    check_writable(options.output)
    measured = measure(options.seconds, options.threads, options.sets, options.live, options.reading)
    write_json(options.output, {"command": "python -m benchmarks.live", "machine": machine(), **measured})
    sys.stdout.write(f"{options.output}: {measured['outcomes']}\n")


if __name__ == "__main__":
    main()
