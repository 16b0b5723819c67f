"""Train the concept files that ship with the package: `python -m pretraining.concepts`.

Every sample concept is trained once by each configuration under `orthoplex/vignette/training/`, on its training
pictures only (the last quarter stays held out). What is done already lies under `work/concepts` and is not done again.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from orthoplex import vignette
from orthoplex.adapters import owned_slot
from orthoplex.benchmark.sources import sample_sources
from orthoplex.benchmark.study import finished
from orthoplex.benchmark.workspace import Workspace
from orthoplex.concepts import load_concept, save_concept
from orthoplex.models import load_base
from orthoplex.training import TrainingConfig

HERE = Path(vignette.__file__).parent


def train_one(job: tuple[str, int, Path]) -> tuple[str, str, float]:
    """Train sample number `job[1]` by configuration `job[0]` and put its file into the package.

    What was trained becomes fp16; frozen directions stay float32, so that they stay orthogonal to the last bit.
    """
    method, index, work = job
    torch.set_num_threads(1)
    source = sample_sources()[index]
    config = TrainingConfig.from_toml(vignette.training_file(method))
    if owned_slot(config.adapter, source.name) is not None:
        config = replace(config, slot=index)
    workspace = Workspace(load_base("vignette"), work)
    trained = finished(workspace.concept(source, config, resolution=128, message=source.name))
    target = HERE / "concepts" / method / f"{source.name}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    concept = load_concept(trained.path)
    layers = {layer: replace(factors, up=factors.up.half()) for layer, factors in concept.layers.items()}
    if method == "lora":
        layers = {layer: replace(factors, down=factors.down.half()) for layer, factors in layers.items()}
    save_concept(replace(concept, layers=layers), target)
    return method, source.name, trained.seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/concepts"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["orthogonal", "lora"])
    options = parser.parse_args()
    jobs = [(method, i, options.work) for method in options.methods for i in range(len(sample_sources()))]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for method, name, seconds in pool.map(train_one, jobs):
            print(f"{method} {name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
