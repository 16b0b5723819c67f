"""Build and load the collection of captioned pictures.

`python -m pretraining.pictures --output work/pictures --count 18000` writes `pictures-NNNN.npy` shards (uint8,
128 × 128 × 3) and the factors beside them (`.jsonl`; captions are drawn from these). Picture i depends on (seed, i)
only, so shards can be built in any order, in parallel, and a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from orthoplex.files import write_text
from pretraining import compose as compose_module
from pretraining import mix, people, places, subjects, vocabulary
from pretraining.compose import Factors, compose
from pretraining.seeds import COLLECTION, HEADS, MEASURED

SHARD = 500


def _shard(arguments: tuple[int, int, int, str]) -> None:
    seed, start, stop, output = arguments
    rows, pictures = [], []
    for index in range(start, stop):
        picture, factors = compose(seed, index)
        pictures.append(np.asarray(picture))
        rows.append(json.dumps({"index": index, **asdict(factors)}))
    path = Path(output) / f"pictures-{start // SHARD:04d}"
    np.save(path.with_suffix(".part.npy"), np.stack(pictures))
    path.with_suffix(".npy").unlink(missing_ok=True)  # a shorter one: never beside the new factors
    write_text(path.with_suffix(".jsonl"), "\n".join(rows) + "\n")
    path.with_suffix(".part.npy").rename(path.with_suffix(".npy"))


def source(seed: int) -> dict[str, str | int]:
    """What decides the pictures of a collection: the seed, and the code and words that compose them."""
    modules = (compose_module, mix, people, places, subjects, vocabulary)
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return {"seed": seed, "code": hashlib.sha256(code).hexdigest()}


def _pictures_in(shard: Path) -> int:
    return len(np.load(shard, mmap_mode="r")) if shard.exists() else 0


def build(output: Path, count: int, seed: int, workers: int) -> None:
    """Build every shard that is missing under `output`, or too short.

    Raises:
        ValueError: When the seed is one that is measured on, or what lies there was made from another seed, other words
            or other code.
    """
    if seed in (MEASURED, HEADS):
        raise ValueError(f"seed is {seed}, whose pictures are measured on; allowed are others than {MEASURED}, {HEADS}")
    output.mkdir(parents=True, exist_ok=True)
    manifest, made_of = output / "collection.json", source(seed)
    if manifest.exists() and json.loads(manifest.read_text()) != made_of:
        raise ValueError(f"{output} holds pictures of another seed or vocabulary; move it away to build these")
    manifest.write_text(json.dumps(made_of) + "\n")
    jobs = [(seed, start, min(start + SHARD, count), str(output)) for start in range(0, count, SHARD)]
    shards = [output / f"pictures-{start // SHARD:04d}.npy" for _, start, _, _ in jobs]
    missing = [job for job, shard in zip(jobs, shards, strict=True) if _pictures_in(shard) < job[2] - job[1]]
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(_shard, missing), start=1):
            print(f"{done}/{len(missing)} shards", flush=True)


def load(folder: Path) -> tuple[np.ndarray, list[Factors]]:
    """All pictures (n, 128, 128, 3) uint8 and their factors.

    Raises:
        ValueError: When a shard has pictures without factors, or factors without pictures.
    """
    shards, factors = sorted(folder.glob("pictures-????.npy")), load_factors(folder)
    data = np.concatenate([np.load(path) for path in shards])
    if len(data) != len(factors):
        raise ValueError(f"{folder} holds {len(data)} pictures and the factors of {len(factors)}; build it again")
    return data, factors


def load_factors(folder: Path) -> list[Factors]:
    """The factors of all pictures, in order."""
    shards = sorted(folder.glob("pictures-????.npy"))
    rows = [json.loads(line) for path in shards for line in path.with_suffix(".jsonl").read_text().splitlines()]
    return [Factors.from_row(row) for row in rows]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("work/pictures"))
    parser.add_argument("--count", type=int, default=18_000)
    parser.add_argument("--seed", type=int, default=COLLECTION)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    build(options.output, options.count, options.seed, options.workers)


if __name__ == "__main__":
    main()
