"""Calls of the library beside an earlier checkout: `python -m benchmarks.calls --before CHECKOUT`.

Each round times both versions in processes of their own, in turn: loading the embedded base, merging its twelve
concepts, folding and restoring the merge, one picture, and steps of a training. Writes `results/calls.json` with the
medians over rounds and the ratios now / before, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median

REPEATS = {"merge": 3, "fold": 15, "restore": 15, "picture": 2}
TRAINING_STEPS = 12
PICTURE_STEPS = 10


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure() -> dict[str, float]:
    """Seconds of every call with the package that is first on the path, the median of its repeats."""
    import torch

    torch.set_num_threads(1)
    vignette, models = import_module("orthoplex.vignette"), import_module("orthoplex.models")
    concepts, generation = import_module("orthoplex.concepts"), import_module("orthoplex.generation")
    training = import_module("orthoplex.training")
    try:
        merge_for = import_module("orthoplex.activations").merge_for
    except ModuleNotFoundError:
        merge_for = training.merge_for
    names = [sample.name for sample in vignette.sample_concepts()]
    files = [vignette.concept_file(name, method="orthogonal") for name in names]
    models.load_base("vignette")  # which imports diffusers
    seconds = {"load": timed(lambda: models.load_base("vignette"))}
    base = models.load_base("vignette")
    pairs = [(concepts.load_concept(file), 1.0) for file in files]
    merge_for(base, pairs)
    seconds["merge"] = median(timed(lambda: merge_for(base, pairs)) for _ in range(REPEATS["merge"]))
    change, folds, restores = merge_for(base, pairs), [], []
    for _ in range(REPEATS["fold"] + 1):
        began = time.perf_counter()
        undo = base.fold(change)
        folds.append(time.perf_counter() - began)
        restores.append(timed(undo.restore))
    seconds |= {"fold": median(folds[1:]), "restore": median(restores[1:])}

    def picture() -> object:
        return generation.generate(base, "<anna> person in a forest", merge=change, num_inference_steps=PICTURE_STEPS)

    picture()
    seconds["picture"] = median(timed(picture) for _ in range(REPEATS["picture"]))
    return seconds | {"training step": _training(base, training, vignette)}


def _training(base: object, training: object, vignette: object) -> float:
    """Seconds of a training step, the median after the first; the default training, cut short."""
    sample = vignette.sample_concepts()[0]
    dataset = training.ConceptDataset.from_folder(
        sample.folder, resolution=128, token="<someone>", class_word=sample.class_word, kind=sample.kind
    )
    with tempfile.TemporaryDirectory() as folder:
        steps = training.train(base, dataset, training.TrainingConfig(), output=Path(folder) / "a.safetensors")
        marks = [time.perf_counter() for _ in islice(steps, TRAINING_STEPS)]
        steps.close()
    return median(after - before for before, after in zip(marks[1:], marks[2:], strict=False))


def run(checkout: Path) -> dict[str, float]:
    """Measure the package of a checkout in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--once"]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/calls.json"))
    parser.add_argument("--once", action="store_true", help="measure the package on the path, and print it")
    options = parser.parse_args()
    if options.once:
        sys.stdout.write(json.dumps(measure()) + "\n")
        return
    if options.before is None:
        parser.error("--before is needed: a checkout of an earlier version")
    rounds = []
    for number in range(options.rounds):
        rounds.append({"before": run(options.before), "now": run(Path(__file__).parents[1])})
        sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    calls = {}
    for name in rounds[0]["now"]:
        ratios = [pair["now"][name] / pair["before"][name] for pair in rounds]
        calls[name] = {
            "before_seconds": median(pair["before"][name] for pair in rounds),
            "now_seconds": median(pair["now"][name] for pair in rounds),
            "ratio": median(ratios),
            "lowest_ratio": min(ratios),
            "highest_ratio": max(ratios),
        }
    version = subprocess.run(
        ["git", "-C", str(options.before), "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    command = f"python -m benchmarks.calls --before CHECKOUT --rounds {options.rounds}"
    result = {"command": command, "before": version, "threads": 1, "rounds": options.rounds, "calls": calls}
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, row in calls.items():
        sys.stdout.write(f"{name}: {row['ratio']:.2f} x ({row['before_seconds']:.4f} -> {row['now_seconds']:.4f} s)\n")


if __name__ == "__main__":
    main()
