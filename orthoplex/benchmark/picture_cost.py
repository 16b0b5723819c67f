"""The cost of a picture: the denoiser's step and the decoder, as diffusers lays them out and as `generate` does.

    python -m orthoplex.benchmark.picture_cost --output results/picture-cost.json

Both are the same pipeline with the same inputs, timed in turns in one process (see `Family.channels_last`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from orthoplex.benchmark.machine import machine
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.files import write_json
from orthoplex.models import Base, Conditioning, load_base


def parts(base: Base, batch_size: int) -> dict[str, Callable[[], object]]:
    """The timed parts, by name, on random numbers: `denoiser`, `decoder`, and `training`, the denoiser there and back.

    Going back reaches every layer behind the first attention, as when concepts are trained.
    """
    family = base.family
    generator = torch.Generator().manual_seed(0)
    latents = family.noise(batch_size, generator).to(base.dtype)
    features = torch.randn(batch_size, 32, family.text_width, generator=generator).to(base.dtype)
    learned = features.clone().requires_grad_()
    time_of_all = torch.tensor(500)

    @torch.no_grad()
    def denoiser() -> None:
        family.predict(latents, time_of_all, Conditioning(features))

    @torch.no_grad()
    def decoder() -> None:
        family.pixels(latents)

    def training() -> None:
        family.predict(latents, time_of_all, Conditioning(learned)).float().square().mean().backward()

    return {"denoiser": denoiser, "decoder": decoder, "training": training}


def picture_cost(base: Base, *, batch_size: int, rounds: int) -> dict[str, Any]:
    """Seconds of every part in either layout, medians over rounds, and the ratio of their medians.

    `turning` is what laying the weights out takes, once for a base, at its first picture or training.

    Args:
        base: The base; a CPU's.
        batch_size: Pictures at once.
        rounds: Times that every part is timed in either layout, after one that is not.

    Raises:
        ConfigurationError: For a batch or rounds below 1.
    """
    for name, value in (("batch_size", batch_size), ("rounds", rounds)):
        if value < 1:
            raise ConfigurationError(f"picture cost {name} is {value}; allowed: 1 or more")
    for network in base.family.convolutional():
        network.requires_grad_(False)
    rows: dict[str, Any] = {}
    for name, run in parts(base, batch_size).items():
        seconds: Mapping[str, list[float]] = {"usual": [], "channels last": []}
        for number in range(rounds + 1):
            for layout in seconds if number % 2 else reversed(seconds):
                (base.family.channels_first if layout == "usual" else base.family.channels_last)()
                started = time.perf_counter()
                run()
                spent = time.perf_counter() - started
                if number:
                    seconds[layout].append(spent)
        medians = {layout: statistics.median(times) for layout, times in seconds.items()}
        rows[name] = {"seconds": medians, "ratio": medians["usual"] / medians["channels last"]}
    base.family.channels_first()
    started = time.perf_counter()
    base.family.channels_last()
    turning = time.perf_counter() - started
    return {"batch_size": batch_size, "rounds": rounds, "parts": rows, "turning": turning, "machine": machine()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="vignette", help="vignette, or a pipeline folder")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("results/picture-cost.json"))
    options = parser.parse_args()
    costs = picture_cost(load_base(options.base), batch_size=options.batch_size, rounds=options.rounds)
    write_json(options.output, {"base": options.base, **costs})
    ratios = ", ".join(f"{name} {row['ratio']:.2f}" for name, row in costs["parts"].items())
    sys.stdout.write(f"{options.output}: usual / channels last {ratios}\n")


if __name__ == "__main__":
    try:
        main()
    except OrthoplexError as error:
        sys.exit(str(error))
