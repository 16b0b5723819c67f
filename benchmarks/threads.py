"""Two hundred mixed requests of eight threads on one base: `python -m benchmarks.threads`.

A request draws with one of several sets of concepts, draws without any, merges, or begins a training and abandons it
half-way. Every picture is compared, bit by bit, with the one that the same request gives alone; afterwards the weights
are hashed again. Writes `results/threads.json`. `--before FOLDER` runs the same requests with another version's package
(its checkout), in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from orthoplex import vignette
from orthoplex.concepts import load_concept
from orthoplex.errors import OrthoplexError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import load_base
from orthoplex.models.identity import weights_hash
from orthoplex.training import ConceptDataset, TrainingConfig, train

try:
    from orthoplex.activations import merge_for
except ImportError:  # what version 0.1 calls it
    from orthoplex.training import merge_on as merge_for  # pyright: ignore[reportAttributeAccessIssue]

SETS = {
    "anna": ("a photo of <anna> person", ("anna",)),
    "otto": ("a photo of <otto> animal in a forest", ("otto",)),
    "anna and otto": ("<anna> person and <otto> animal", ("anna", "otto")),
    "piazza": ("a photo of <piazza> place", ("piazza",)),
    "umbra": ("a cat, <umbra> painting", ("umbra",)),
    "four": ("<bruno> person in <piazza> place", ("bruno", "piazza", "otto", "umbra")),
}
PLAIN = "a photo of a cat in a forest"
KINDS = ("with concepts", "without", "merge", "abandoned training")
STEPS = 2
"""Denoising steps of a picture: enough to tell pictures apart, few enough for two hundred."""


def requests(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(kind, set of concepts) of every request; half of them draw with concepts."""
    rng = random.Random(seed)
    kinds = rng.choices(KINDS, weights=(5, 2, 2, 1), k=count)
    return [(kind, rng.choice(list(SETS))) for kind in kinds]


def measure(count: int, threads: int) -> dict[str, object]:
    """Run the requests, each alone first, and count what differs."""
    torch.set_num_threads(1)
    base = load_base("vignette")
    names = sorted({name for _, members in SETS.values() for name in members})
    concepts = {name: load_concept(vignette.concept_file(name, method="orthogonal")) for name in names}
    sample = next(sample for sample in vignette.sample_concepts() if sample.name == "anna")
    told = {"token": "<someone>", "class_word": sample.class_word, "kind": sample.kind}
    dataset = ConceptDataset.from_folder(sample.folder, resolution=128, **told)
    config = TrainingConfig(steps=4, batch_size=1, layers="attention", erasure=0.0, erasure_form="activation")
    pairs = {name: [(concepts[member], 1.0) for member in members] for name, (_, members) in SETS.items()}

    def drawn(kind: str, name: str) -> bytes:
        change = merge_for(base, pairs[name]) if kind == "with concepts" else None
        prompt = SETS[name][0] if kind == "with concepts" else PLAIN
        image = generate(base, prompt, merge=change, num_inference_steps=STEPS)[0]
        return np.asarray(image).tobytes()

    def merged(name: str) -> bytes:
        change = merge(pairs[name], algorithm="sum")
        return b"".join(low_rank.delta().numpy().tobytes() for _, low_rank in sorted(change.layers.items()))

    def hashes() -> tuple[str, str, int]:
        modules = {"unet": base.pipeline.unet, "text_encoder": base.pipeline.text_encoder}
        return weights_hash(modules), weights_hash({"vae": base.pipeline.vae}), len(base.pipeline.tokenizer)

    asked = requests(count)
    alone = {
        (kind, name): merged(name) if kind == "merge" else drawn(kind, name)
        for kind, name in sorted(set(asked))
        if kind != "abandoned training"
    }
    before, kept, outcomes = hashes(), [], Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads) as pool:

        def serve(number: int) -> str:
            kind, name = asked[number]
            try:
                if kind == "abandoned training":
                    steps = train(base, dataset, config, output=Path(folder) / f"{number}.safetensors")
                    kept.append((steps, list(islice(steps, 3))))
                    return "abandoned"
                made = merged(name) if kind == "merge" else drawn(kind, name)
            except (OrthoplexError, RuntimeError, KeyError, ValueError, AttributeError) as error:
                return f"error: {type(error).__name__}"
            return "right" if made == alone[kind, name] else "wrong"

        began = time.perf_counter()
        outcomes.update(pool.map(serve, range(count)))
        seconds = time.perf_counter() - began
        after = hashes()  # with every abandoned training still there
        for steps, _ in kept:
            steps.close()
    return {
        "requests": dict(Counter(kind for kind, _ in asked)),
        "threads": threads,
        "outcomes": dict(sorted(outcomes.items())),
        "weights as before": after == before,
        "seconds": seconds,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--before", type=Path, help="checkout of another version")
    parser.add_argument("--output", type=Path, default=Path("results/threads.json"))
    options = parser.parse_args()
    found: dict[str, object] = {"now": measure(options.requests, options.threads)}
    if options.before:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "before.json"
            told = ["--requests", str(options.requests), "--threads", str(options.threads), "--output", str(output)]
            environment = {**os.environ, "PYTHONPATH": str(options.before.resolve())}
            subprocess.run([sys.executable, __file__, *told], check=True, env=environment)
            found["before"] = json.loads(output.read_text())["now"]
    command = "python -m benchmarks.threads" + (" --before FOLDER" if options.before else "")
    options.output.write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    sys.stdout.write(f"{options.output}: {found['now']}\n")


if __name__ == "__main__":
    main()
