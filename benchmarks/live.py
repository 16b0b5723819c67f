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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orthoplex import vignette
from orthoplex.benchmark.machine import machine
from orthoplex.concepts import Concept, load_concept
from orthoplex.files import write_json
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import Base, load_base

STEPS = 2
"""Denoising steps of a picture: enough to tell pictures apart."""
SECONDS_BETWEEN_READINGS = 15.0
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
    """Return the pictures of fresh merges, drawn by a base that nobody else uses."""
    other, pictures = load_base("vignette"), []
    for strengths, prompt in pool:
        fresh = merge([(concept, strengths.get(name, 0.0)) for name, concept in concepts.items()], algorithm="sum")
        pictures.append(picture(other, prompt, merge=fresh))
    return pictures


def resident_bytes() -> int:
    """Return the memory of this process, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(seconds: float, threads: int, sets: int) -> dict[str, Any]:
    """Draw for some seconds, and count what differs."""
    torch.set_num_threads(1)
    names = [sample.name for sample in vignette.sample_concepts()]
    concepts = {name: load_concept(vignette.concept_file(name, method="orthogonal")) for name in names}
    pool = pool_of(concepts, sets, seed=0)
    expected = fresh_pictures(concepts, pool)
    base = load_base("vignette")
    blend = base.blend(list(concepts.values()), algorithm="sum")
    outcomes, switches, memory = Counter[str](), list[float](), list[tuple[float, int]]()
    began = time.perf_counter()
    end = began + seconds

    def draw(number: int) -> None:
        rng = random.Random(number)
        while time.perf_counter() < end:
            chosen = rng.randrange(len(pool))
            strengths, prompt = pool[chosen]
            try:
                with base.locked():
                    started = time.perf_counter()
                    blend.update({name: strengths.get(name, 0.0) for name in names})
                    switches.append(time.perf_counter() - started)
                    drawn = picture(base, prompt)
                outcomes["right" if drawn == expected[chosen] else "wrong"] += 1
            except Exception as error:  # noqa: BLE001  (every error is a result)
                outcomes[f"error: {type(error).__name__}: {error}"] += 1

    def ask() -> None:
        rng = random.Random("asked")
        while time.perf_counter() < end:
            blend.update({rng.choice(names): rng.choice((0.0, 0.5, 1.0))})
            outcomes["asked without the lock"] += 1
            time.sleep(0.05)

    workers = [threading.Thread(target=draw, args=(number,)) for number in range(threads)]
    workers.append(threading.Thread(target=ask))
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        memory.append((time.perf_counter() - began, resident_bytes()))
        workers[0].join(SECONDS_BETWEEN_READINGS)
        if not workers[0].is_alive():
            break
    for worker in workers:
        worker.join()
    memory.append((time.perf_counter() - began, resident_bytes()))
    blend.restore()
    settled = memory[len(memory) // 3 :]
    return {
        "seconds": seconds,
        "threads": threads,
        "sets": sets,
        "pictures": outcomes["right"] + outcomes["wrong"],
        "outcomes": dict(sorted(outcomes.items())),
        "switch_seconds": {"fastest": min(switches), "median": statistics.median(switches)},
        "resident_bytes": memory,
        "growth_after_a_third": settled[-1][1] - settled[0][1],
        "live": live(base, concepts),
    }


def live(base: Base, concepts: Mapping[str, Concept]) -> dict[str, int]:
    """Change the set in the middle of live pictures; say how many changes came between two steps."""
    names, between, errors = list(concepts), 0, 0
    with base.blend(list(concepts.values()), algorithm="sum") as blend:
        for number in range(10):
            wanted = names[number]
            thread = threading.Thread(target=blend.only, args=(wanted,))

            def progress(now: Any, thread: threading.Thread = thread) -> None:  # noqa: ANN401
                if now.step == 1:
                    thread.start()
                    time.sleep(0.02)

            try:
                generate(base, "a cat", num_inference_steps=6, live=True, progress=progress, expect_names=False)
            except Exception:  # noqa: BLE001
                errors += 1
            between += int(list(blend) == [wanted])
            thread.join()
            blend.update(dict.fromkeys(names, 1.0))
    return {"pictures": 10, "changed_before_the_end": between, "errors": errors}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--sets", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("results/live.json"))
    options = parser.parse_args()
    measured = measure(options.seconds, options.threads, options.sets)
    write_json(options.output, {"command": "python -m benchmarks.live", "machine": machine(), **measured})
    sys.stdout.write(f"{options.output}: {measured['outcomes']}\n")


if __name__ == "__main__":
    main()
