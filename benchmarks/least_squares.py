"""What a merge by least squares costs, the first time and again, beside version 0.1, and how exact it is.

    python -m benchmarks.least_squares --before CHECKOUT --output results/least-squares.json

Cold is the first call of a fresh process with an empty cache folder, after base and concepts are loaded; warm are the
next calls of it. Processes of both versions take turns. Errors are relative, of the layer in which they are largest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.full_size import full_size_folder
from benchmarks.merge_engine import shapes_of
from orthoplex import vignette
from orthoplex.benchmark.machine import machine
from orthoplex.errors import ConfigurationError
from orthoplex.files import write_json
from orthoplex.merging.algorithms.data_aware import LeastSquares

WORKER = Path(__file__).with_name("least_squares_worker.py")
RANK, ROWS = 20, 100
CASES = ("vignette", "vignette, auto", "sd15", "sd15, auto", "sdxl")
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Case:
    """What is merged.

    Attributes:
        name: One of ``CASES``.
        job: What ``least_squares_worker`` is asked for, but for its output.
        every: Changes of every how-many-th layer are compared.
        calls_before: Most warm calls of version 0.1 in a process.
    """

    name: str
    job: Mapping[str, Any]
    every: int = 1
    calls_before: int = 20


@dataclass
class Outcome:
    """What processes of one version took and gave.

    Attributes:
        cold: Seconds of the first calls.
        warm: Seconds of the next ones.
        changes: What the last process wrote.
    """

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    changes: dict[str, Tensor] = field(default_factory=dict)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Return the fastest and the median of both."""
        pairs = {"cold": self.cold, "warm": self.warm}
        return {name: {"fastest": min(values), "median": statistics.median(values)} for name, values in pairs.items()}

    def layers(self, call: str) -> dict[str, Tensor]:
        """Return the changes of a call, ``"cold"`` or ``"warm"``, by layer."""
        return {name.split("|", 1)[1]: values for name, values in self.changes.items() if name.startswith(f"{call}|")}


def random_members(shapes: Mapping[str, tuple[int, int]], count: int, rank: int, rows: int) -> dict[str, Tensor]:
    """Return factors and input rows of random concepts, as ``least_squares_worker.members_of`` reads them.

    Args:
        shapes: Layer to ``(out, in)``; ``in`` is the same for all.
        count: How many concepts.
        rank: Of every change.
        rows: Of every concept's inputs; 0 writes none.
    """
    tensors = {}
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        for layer, (out_features, in_features) in shapes.items():
            tensors[f"c{number:02d}|{layer}|up"] = 0.01 * torch.randn(out_features, rank, generator=generator)
            down = torch.randn(rank, in_features, generator=generator) / in_features**0.5
            tensors[f"c{number:02d}|{layer}|down"] = down
        if rows:
            width = next(iter(shapes.values()))[1]
            tensors[f"c{number:02d}|inputs"] = torch.randn(rows, width, generator=generator).half()
    return tensors


def dense_change(layer: str, needed: Mapping[str, Tensor], ridge: float) -> Tensor:
    """Return the change of a layer from matrices of its inputs' width squared, in float64; see ``LeastSquares``.

    Args:
        layer: The layer.
        needed: Factors, input rows, and ``"foreign"`` with its ``"weight"``, as the worker writes them.
        ridge: ε as a share of the mean diagonal.
    """
    wanted, total = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    for name in sorted({key.split("|")[0] for key in needed if key.endswith("|inputs")}):
        rows = needed[f"{name}|inputs"].double()
        gram = rows.T @ rows
        total = total + gram
        up, down = (needed.get(f"{name}|{layer}|{part}") for part in ("up", "down"))
        if up is not None and down is not None:
            wanted = wanted + (up.double() @ down.double()) @ gram
    if "foreign" in needed:
        total = total + float(needed["weight"]) * needed["foreign"].double()
    total = total + ridge * total.diagonal().mean() * torch.eye(len(total), dtype=torch.float64)
    return torch.linalg.solve(total, wanted.T).T


def largest_difference(changes: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Return ``‖change − wanted‖ / ‖wanted‖`` of the layer in which it is largest.

    Raises:
        ConfigurationError: If the layers are not the same, or there is none.
    """
    if changes.keys() != wanted.keys() or not changes:
        raise ConfigurationError(
            f"changes of {len(changes)} layers are compared with those of {len(wanted)}; allowed are the same layers"
        )
    return max(
        float((changes[layer].double() - wanted[layer].double()).norm() / wanted[layer].double().norm())
        for layer in wanted
    )


def measured(case: Case, before: Path | None, rounds: int, calls: int) -> dict[str, Any]:
    """Measure a case in ``rounds`` processes a version, and compare what they give."""
    root = Path(__file__).parents[1]
    checkouts = {"now": root} if before is None else {"now": root, "before": before.resolve()}
    outcomes = {version: Outcome() for version in checkouts}
    layers = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for version in checkouts if number % 2 == 0 else reversed(checkouts):
                own = calls if version == "now" else min(calls, case.calls_before)
                job = {**case.job, "calls": own, "every": case.every}
                found = asked(job, checkouts[version], Path(folder) / f"{version}.safetensors")
                outcomes[version].cold.append(found["seconds"][0])
                outcomes[version].warm.extend(found["seconds"][1:])
                outcomes[version].changes = load_file(Path(folder) / f"{version}.safetensors")
                layers = found["layers"]
    return {"case": case.name, "layers": layers, **compared(case, outcomes)}


def compared(case: Case, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return seconds, ratios and differences."""
    now = outcomes["now"]
    cold, warm = now.layers("cold"), now.layers("warm")
    needed = {key.split("|", 1)[1]: values for key, values in now.changes.items() if key.startswith("needed|")}
    needed = needed or load_file(case.job["members"])
    exact = {layer: dense_change(layer, needed, LeastSquares().ridge) for layer in cold}
    differences = {
        "cold_to_warm": largest_difference(cold, warm),
        "cold_to_dense": largest_difference(cold, exact),
        "warm_to_dense": largest_difference(warm, exact),
    }
    seconds = {version: outcome.seconds() for version, outcome in outcomes.items()}
    result: dict[str, Any] = {"seconds": seconds, "layers_compared": len(cold)}
    if "before" in outcomes:
        differences["before_to_dense"] = largest_difference(outcomes["before"].layers("warm"), exact)
        result["before_to_now"] = {
            call: {key: seconds["before"][call][key] / value for key, value in values.items()}
            for call, values in seconds["now"].items()
        }
    return {**result, "largest_relative_differences": differences}


def asked(job: Mapping[str, Any], checkout: Path, output: Path) -> Any:  # noqa: ANN401  (what JSON holds)
    """Run the worker of a job in a fresh process with an empty cache folder.

    Raises:
        ConfigurationError: See ``answer``.
    """
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "job.json"
        file.write_text(json.dumps({**job, "output": str(output), "threads": torch.get_num_threads()}))
        environment = {**os.environ, "PYTHONPATH": str(checkout), "HOME": home}
        command = [sys.executable, str(WORKER), str(file)]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    return answer(done, checkout)


def answer(done: subprocess.CompletedProcess[str], checkout: Path) -> Any:  # noqa: ANN401  (what JSON holds)
    """Return what a worker has printed.

    Raises:
        ConfigurationError: If it failed, which says how, or ran another package than the checkout's.
    """
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigurationError(f"merge by {checkout} failed: {reason}; allowed are checkouts that can merge")
    found = json.loads(done.stdout.splitlines()[-1])
    if found and not Path(found["package"]).resolve().is_relative_to(checkout.resolve()):
        raise ConfigurationError(f"package is {found['package']}; allowed is one in {checkout}")
    return found


def cases(names: Sequence[str], folder: Path, sd15: Path) -> Iterator[Case]:
    """Yield cases; what they need is written into a folder first.

    Args:
        names: Some of ``CASES``.
        folder: Where random concepts are written.
        sd15: Where the random Stable Diffusion 1.5 is, or is written (2.1 GB).
    """
    for name in names:
        algorithm = "auto" if name.endswith("auto") else "least-squares"
        members = folder / f"{name}.safetensors"
        if name.startswith("vignette"):
            shipped = sorted(sample.name for sample in vignette.sample_concepts())
            yield Case(name, {"base": "vignette", "shipped": shipped, "algorithm": algorithm})
        elif name == "sdxl":
            save_file(random_members(shapes_of_keys_values("sdxl"), 15, RANK, ROWS), members)
            yield Case(name, {"members": str(members)}, every=20, calls_before=1)
        else:
            full_size_folder(sd15)
            plain = folder / "plain.safetensors"
            save_file(random_members(shapes_of_keys_values("sd15"), 2, RANK, 0), plain)
            base = str(sd15.resolve())
            asked({"inputs": True, "base": base, "members": str(plain)}, Path(__file__).parents[1], members)
            job = {"base": base, "members": str(members), "algorithm": algorithm}
            yield Case(name, job, calls_before=3)


def shapes_of_keys_values(model: str) -> dict[str, tuple[int, int]]:
    """Return the keys and values of a denoiser, by the names of concepts' layers."""
    return {f"unet.{name}": shape for name, shape in shapes_of(model, "cross-attention-kv").items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each version")
    parser.add_argument("--calls", type=int, default=20, help="warm calls of a process")
    parser.add_argument("--before", type=Path, help="checkout of version 0.1")
    sd15 = Path(tempfile.gettempdir()) / "orthoplex-random-sd15"
    parser.add_argument("--sd15", type=Path, default=sd15, help="where its random base is, or is written")
    parser.add_argument("--output", type=Path, default=Path("results/least-squares.json"))
    options = parser.parse_args(arguments)
    for name in ("rounds", "calls"):
        if getattr(options, name) < 1:
            raise ConfigurationError(f"least squares {name} is {getattr(options, name)}; allowed: 1 or more")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(options.cases, Path(folder), options.sd15):
            rows.append(measured(case, options.before, options.rounds, options.calls))
            sys.stderr.write(f"{rows[-1]}\n")
            command = "python -m benchmarks.least_squares" + (" --before CHECKOUT" if options.before else "")
            write_json(options.output, {"command": command, "machine": machine(), "merges": rows})


if __name__ == "__main__":
    main()
