"""Merge by least squares in a fresh process, the first time and again, and print what it took.

Usage: ``python least_squares_worker.py JOB.json``; ``PYTHONPATH`` chooses the Orthoplex, this one or version 0.1, and
``HOME`` the cache folder. Seconds are printed as one line of JSON; changes are written to the job's output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import orthoplex
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, Manifest, load_concept
from orthoplex.merging import InputGrams, create_algorithm, merge_layers
from orthoplex.models import Base, load_base

Act = Callable[[], Mapping[str, Any]]
IS_BEFORE = not (Path(orthoplex.__file__).parent / "activations").is_dir()
"""True in version 0.1, which has neither stored rows nor a Gram matrix of its base's foreign prompts."""


@dataclass(frozen=True)
class Member:
    """Changes of layers, and the rows of their inputs; no concept of a base.

    Attributes:
        name: Its name, by which it is known.
        layers: Layer to change.
        inputs: ``(k, in)``.
    """

    name: str
    layers: dict[str, LowRank]
    inputs: Tensor

    @property
    def content_hash(self) -> str:
        """Its name."""
        return self.name


def members_of(path: Path) -> list[Member]:
    """Read members: tensors ``<member>|<layer>|up``, ``<member>|<layer>|down`` and ``<member>|inputs``."""
    tensors = load_file(path)
    members = {}
    for key in sorted(tensors):
        name, *rest = key.split("|")
        member = members.setdefault(name, Member(name, {}, tensors.get(f"{name}|inputs", torch.empty(0))))
        if rest[-1] == "up":
            member.layers[rest[0]] = LowRank(tensors[key], tensors[f"{name}|{rest[0]}|down"])
    return list(members.values())


def concepts_of(job: Mapping[str, Any], base: Base) -> list[Concept]:
    """Return the job's concepts: shipped files by name, or members as concepts of a base, whose words call them."""
    if "shipped" in job:
        from orthoplex import vignette

        files = [vignette.concept_file(name, method="orthogonal") for name in job["shipped"]]
        return [load_concept(file) for file in files]
    return [concept_of(member, base) for member in members_of(Path(job["members"]))]


def concept_of(member: Member, base: Base) -> Concept:
    """Return a member as a concept without tokens; without rows it stores no inputs."""
    trigger = f"{member.name} thing"
    manifest = Manifest(
        name=member.name, kind="other", class_word="thing", trigger=trigger, base=base.identity, method="lora"
    )
    return Concept(manifest, member.layers, inputs=member.inputs if member.inputs.numel() else None)


def of_layers(job: Mapping[str, Any]) -> Act:
    """Return a merge of layers alone, without a base."""
    members, algorithm = members_of(Path(job["members"])), create_algorithm("least-squares", {})

    def act() -> Mapping[str, Any]:
        grams: dict[str, Any] = {
            member.name: dict.fromkeys(member.layers, gram_of(member.inputs)) for member in members
        }
        pairs: Any = [(member, 1.0) for member in members]
        return merge_layers(algorithm, pairs, InputGrams(grams))

    return act


def gram_of(rows: Tensor) -> Any:  # noqa: ANN401  (a matrix in version 0.1)
    """Return the Gram matrix of rows, as a version's own merge makes it from a file."""
    room: Any = import_module("orthoplex.merging")
    return room.kept_gram(rows) if IS_BEFORE else room.RowGram(rows)


def on_base(job: Mapping[str, Any], base: Base) -> Act:
    """Return a merge of concepts on a base."""
    room: Any = import_module("orthoplex.training" if IS_BEFORE else "orthoplex.activations")
    merge_for = room.merge_on if IS_BEFORE else room.merge_for
    pairs = [(concept, 1.0) for concept in concepts_of(job, base)]
    return lambda: merge_for(base, pairs, algorithm=job["algorithm"]).layers


def write_inputs(job: Mapping[str, Any]) -> None:
    """Write members again with the inputs that their layers have on a base, as a training stores them."""
    from orthoplex.activations import with_inputs

    base = load_base(job["base"])
    tensors = {}
    for member in members_of(Path(job["members"])):
        rows = with_inputs(base, concept_of(member, base)).inputs
        if rows is None:
            sys.exit(f"member {member.name}: its layers' inputs differ; allowed are keys and values alone")
        tensors[f"{member.name}|inputs"] = rows
    save_file({**load_file(job["members"]), **tensors}, job["output"])


def needed_of(job: Mapping[str, Any], base: Base) -> dict[str, Tensor]:
    """Return all that a dense solve needs: factors, the rows of inputs, the foreign Gram matrix and its weight."""
    from orthoplex.activations import foreign_gram
    from orthoplex.merging import default_algorithm

    needed, concepts = {}, concepts_of(job, base)
    for concept in concepts:
        for layer, change in concept.layers.items():
            needed[f"{concept.name}|{layer}|up"] = change.up.contiguous()
            needed[f"{concept.name}|{layer}|down"] = change.down.contiguous()
        if concept.inputs is None:
            sys.exit(f"concept {concept.name}: no inputs are stored; allowed are concepts that store them")
        needed[f"{concept.name}|inputs"] = concept.inputs
    if job["algorithm"] == "auto":
        chosen = default_algorithm([(concept, 1.0) for concept in concepts])
        needed["weight"] = torch.tensor(chosen.options["foreign"], dtype=torch.float64)
        needed["foreign"] = foreign_gram(base).gram
    return needed


def measure(job: Mapping[str, Any]) -> dict[str, object]:
    """Time the first call and the next ones, and write the changes that both give, of every few layers."""
    base = load_base(job["base"]) if "base" in job else None
    act = of_layers(job) if base is None else on_base(job, base)
    seconds, changes = [], {}
    merged: Mapping[str, Any] = {}
    for number in range(1 + job["calls"]):
        started = time.perf_counter()
        merged = act()
        seconds.append(time.perf_counter() - started)
        if number == 0:
            changes |= {f"cold|{layer}": merged[layer].delta() for layer in sorted(merged)[:: job["every"]]}
    changes |= {f"warm|{layer}": merged[layer].delta() for layer in sorted(merged)[:: job["every"]]}
    if base is not None and not IS_BEFORE:
        changes |= {f"needed|{name}": values for name, values in needed_of(job, base).items()}
    save_file({name: values.contiguous() for name, values in changes.items()}, job["output"])
    return {"seconds": seconds, "layers": len(merged), "package": orthoplex.__file__}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(asked["threads"])
    print(json.dumps(write_inputs(asked) if asked.get("inputs") else measure(asked)))
