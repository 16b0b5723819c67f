"""A run in few megabytes: what `python -m pretraining.train pack` writes, and what a training goes on from alone.

    weights.safetensors.bz2   the averaged weights, fp16 on the grid that ships (`rounding.py`), and the latent space
    denoiser.jsonl           the log
    run.json                 samples seen, the settings and so the schedule, hashes of vocabulary and latent space

Left out are the exact weights, which begin anew at the average, and the moments, which begin at zero: the rate rises to
its schedule again over `restart_samples`. `bunzip2` and safetensors read the file without this package.
"""

from __future__ import annotations

import bz2
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from orthoplex.files import write_json, write_text, written_atomically
from pretraining import checkpoint
from pretraining.autoencoder import PatchPca
from pretraining.denoiser import DenoiserConfig, check_config
from pretraining.muon import layout, named
from pretraining.rounding import rounded

WEIGHTS, RUN, LOG = "weights.safetensors.bz2", "run.json", "denoiser.jsonl"
#: what a packed run may take
MOST_BYTES = 19_000_000


def pack(work: Path, model: nn.Module, folder: Path) -> int:
    """Write the run under `work` to `folder`; `model` names its weights. Returns the bytes of the packed weights.

    `run.json` is written last and states the weights' hash: a folder whose packing was interrupted is refused.

    Raises:
        ValueError: When the checkpoint was written in another latent space, or the packed weights take too much room.
    """
    pca = PatchPca.load(work)
    state = torch.load(work / "denoiser.pt", map_location="cpu", weights_only=True, mmap=True)
    if state["latent_space"] != pca.key:
        raise ValueError(f"the checkpoint's latent space is {state['latent_space']}; allowed is {pca.key}")
    steps = state["config"]["rounding_steps"]
    tensors = {
        name: rounded(value, value.shape, steps).half().contiguous()
        for name, value in named(model, state["average"]).items()
    }
    tensors |= {"pca.mean": pca.mean.contiguous(), "pca.components": pca.components.contiguous()}
    packed = bz2.compress(save(tensors))
    if len(packed) > MOST_BYTES:
        raise ValueError(f"the packed weights take {len(packed)} bytes; allowed are at most {MOST_BYTES}")
    with written_atomically(folder / WEIGHTS) as temporary:
        temporary.write_bytes(packed)
    write_text(folder / LOG, log_until(work / LOG, state["samples"]))
    told = {name: state[name] for name in ("samples", "restarted", "vocabulary", "latent_space", "config")}
    initial = json.loads((work / "denoiser.json").read_text())["initial"]
    write_json(folder / RUN, {**told, "initial": initial, "weights": checkpoint.digest(packed)})
    return len(packed)


def unpack(folder: Path, model: nn.Module, config: DenoiserConfig, work: Path, *, other_total: bool = False) -> int:
    """Write the checkpoint, the latent space and the log of a packed run to `work`. Returns the samples it has seen.

    The checkpoint is written last: an interrupted unpacking begins anew.

    Raises:
        ValueError: When the folder's files do not belong together, or the run began with other settings.
    """
    run, packed = json.loads((folder / RUN).read_text()), (folder / WEIGHTS).read_bytes()
    if (found := checkpoint.digest(packed)) != run["weights"]:
        raise ValueError(f"{folder / WEIGHTS} has the hash {found}; allowed is {run['weights']}, which {RUN} states")
    check_config(run["config"], config, folder / RUN, other_total=other_total)
    tensors = load(bz2.decompress(packed))
    pca = PatchPca(tensors.pop("pca.mean"), tensors.pop("pca.components"))
    pca.save(work)
    write_text(work / LOG, (folder / LOG).read_text())
    write_json(work / "denoiser.json", {**asdict(config), "initial": run["initial"]})
    weights = _flat(model, tensors)
    moments = {"first": torch.zeros_like(weights), "second": torch.zeros_like(weights)}
    told = {"samples": run["samples"], "restarted": run["samples"], "config": asdict(config)}
    meant = {"vocabulary": run["vocabulary"], "latent_space": run["latent_space"]}
    checkpoint.save(work / "denoiser.pt", {"weights": weights, "average": weights.clone(), **moments, **meant, **told})
    return run["samples"]


def log_until(log: Path, seen: int) -> str:
    """The lines of a log (JSON) up to so many samples; a line that was cut off by a crash is left out."""
    kept = []
    for line in log.read_text().splitlines(keepends=True) if log.exists() else []:
        if line.endswith("}\n") and json.loads(line)["samples"] <= seen:
            kept.append(line)
    return "".join(kept)


def _flat(model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
    """Tensors by the names of a model's parameters, as one float32 tensor in the model's order."""
    return torch.cat([tensors[part.name].float().flatten() for part in layout(model, 1)])
