"""One job of ``benchmarks.file_merge``: prints seconds and peak memory as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange import LoraFile, read_lora, write_lora
from orthoplex.concepts.layer_table import layer_table
from orthoplex.merging import Strengths, Truncation, merge_files, truncate

_BLOCK = 1 << 24
_REPEATS, _SHORT = 2, 2.0
"""The best of three counts where one run is shorter than this many seconds."""
_LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj"


def linear_layers(version: str) -> dict[str, tuple[int, int]]:
    """Return the attention and feed-forward layers of a version's denoiser, with their shapes."""
    table = layer_table(version)
    if table is None:
        raise SystemExit(f"no table knows {version}")
    return {
        layer: (shape[0], shape[1])
        for layer, shape in table.versions[version].items()
        if len(shape) == 2 and "transformer_blocks" in layer
    }


def linear_shapes(version: str) -> Counter[tuple[int, int]]:
    """Return how many layers there are of each shape."""
    return Counter(linear_layers(version).values())


def drawn_factors(shape: tuple[int, int], files: int, rank: int) -> list[LowRank]:
    """Return one change a file, of independent normal numbers in float16."""
    generator = torch.Generator().manual_seed(shape[0] + shape[1])
    return [
        LowRank(
            torch.randn(shape[0], rank, generator=generator).half(),
            torch.randn(rank, shape[1], generator=generator).half(),
        )
        for _ in range(files)
    ]


def truncation(name: str, shape: tuple[int, int], files: int, rank: int, target: int) -> dict[str, float]:
    """Truncate a sum, and return seconds and the relative error against the sum in float64."""
    compute = {"ours": _ours, "peft": _peft, "dense": _dense}[name]
    compute(drawn_factors((64, 64), 2, 4), 4)  # what the first call of a process costs is no part of it
    changes = drawn_factors(shape, files, rank)
    product, seconds = compute(changes, target)
    for _ in range(_REPEATS if seconds < _SHORT else 0):
        product, again = compute(changes, target)
        seconds = min(seconds, again)
    peak = peak_mib()
    exact = sum((change.up.double() @ change.down.double() for change in changes), torch.zeros((), dtype=torch.float64))
    error = float((product() - exact).norm() / exact.norm())
    return {"seconds": seconds, "error": error, "peak_mib": peak}


def _ours(changes: list[LowRank], target: int) -> tuple[Callable[[], Tensor], float]:
    begin = time.perf_counter()
    merged = truncate(LowRank.stack(changes), Truncation(rank=target)).change
    return lambda: merged.up.double() @ merged.down.double(), time.perf_counter() - begin


def _dense(changes: list[LowRank], target: int) -> tuple[Callable[[], Tensor], float]:
    begin = time.perf_counter()
    left, sizes, right = torch.linalg.svd(LowRank.stack(changes).delta(), full_matrices=False)
    up, down = left[:, :target] * sizes[:target], right[:target]
    return lambda: up.double() @ down.double(), time.perf_counter() - begin


def _peft(changes: list[LowRank], target: int) -> tuple[Callable[[], Tensor], float]:
    """PEFT's own ``add_weighted_adapter`` on a model of one linear layer."""
    from peft import LoraConfig, PeftModel

    rows, rank = changes[0].up.shape
    width = changes[0].down.shape[1]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"])
    names = [f"file{number}" for number in range(len(changes))]
    model = PeftModel(torch.nn.Sequential(torch.nn.Linear(width, rows, bias=False)), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    tuner: Any = model.base_model
    layer = tuner.model[0]
    with torch.no_grad():
        for name, change in zip(names, changes, strict=True):
            layer.lora_A[name].weight.copy_(change.down)
            layer.lora_B[name].weight.copy_(change.up)
    begin = time.perf_counter()
    tuner.add_weighted_adapter(names, [1.0] * len(names), "merged", combination_type="svd", svd_rank=target)
    seconds = time.perf_counter() - begin
    return lambda: layer.get_delta_weight("merged").detach().double(), seconds


def make_files(folder: Path, files: int, rank: int, version: str) -> dict[str, float]:
    """Write files as kohya's scripts name them; numbers are pieces of one pool of normal numbers."""
    pool = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0)).half()
    for number in range(files):
        layers = {}
        for place, (layer, (rows, width)) in enumerate(linear_layers(version).items()):
            start = (number * 7919 + place * 104_729) % (len(pool) - (rows + width) * rank)
            up, down = pool[start:].split([rows * rank, width * rank, len(pool) - start - (rows + width) * rank])[:2]
            layers[layer] = LowRank(up.view(rows, rank), down.view(rank, width))
        lora = LoraFile(f"file{number}", "kohya", "stable_diffusion_xl", version, layers)
        write_lora(lora, folder / f"file{number}.safetensors", style="kohya", dtype=torch.float16)
    return {}


def concatenate(folder: Path, files: int) -> dict[str, float]:
    """Read, merge and write files at strength 1."""
    begin = time.perf_counter()
    pairs = [(read_lora(folder / f"file{number}.safetensors"), Strengths()) for number in range(files)]
    merged = merge_files(pairs)
    write_lora(merged.lora, folder / "merged.safetensors", style="kohya", dtype=torch.float16)
    seconds = time.perf_counter() - begin
    largest = max(change.up.nbytes + change.down.nbytes for change in merged.lora.layers.values())
    return {
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "largest_layer_mib": largest / 2**20,
        "output_mib": (folder / "merged.safetensors").stat().st_size / 2**20,
    }


def copy(folder: Path, files: int) -> dict[str, float]:
    """Read the bytes of all files, and write as many as the merged file has."""
    size = (folder / "merged.safetensors").stat().st_size
    block = bytearray(_BLOCK)
    begin = time.perf_counter()
    for number in range(files):
        with (folder / f"file{number}.safetensors").open("rb") as file:
            while file.readinto(block):
                pass
    with (folder / "copy.safetensors").open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(memoryview(block)[: size - start])
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_mib": peak_mib()}


def algorithm(name: str, shape: tuple[int, int], files: int, rank: int) -> dict[str, Any]:
    """Merge one layer of files by an algorithm."""
    changes: list[Mapping[str, LowRank]] = [{_LAYER: change} for change in drawn_factors(shape, files, rank)]
    pairs = [
        (LoraFile(f"file{number}", "kohya", "stable_diffusion_xl", "sdxl", layers), Strengths())
        for number, layers in enumerate(changes)
    ]
    before = peak_mib()
    begin = time.perf_counter()
    merged = merge_files(pairs, algorithm=name).lora
    seconds = time.perf_counter() - begin
    change = merged.layers.get(_LAYER)
    rank_now = None if change is None else change.rank
    return {"seconds": seconds, "peak_mib": peak_mib(), "before_mib": before, "rank": rank_now}


def peak_mib() -> float:
    """Return the peak of this program's memory; Linux's ``ru_maxrss`` would count that of its parent, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    """Run the job that the arguments name."""
    torch.set_num_threads(1)
    job, *arguments = sys.argv[1:]
    match job, arguments:
        case "truncate", [name, *numbers]:
            out, width, files, rank, target = map(int, numbers)
            result = truncation(name, (out, width), files, rank, target)
        case "make", [folder, files, rank, version]:
            result = make_files(Path(folder), int(files), int(rank), version)
        case "concatenate", [folder, files]:
            result = concatenate(Path(folder), int(files))
        case "copy", [folder, files]:
            result = copy(Path(folder), int(files))
        case "algorithm", [name, *numbers]:
            out, width, files, rank = map(int, numbers)
            result = algorithm(name, (out, width), files, rank)
        case _:
            raise SystemExit(f"job is {job!r}; allowed are truncate, make, concatenate, copy, algorithm")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
