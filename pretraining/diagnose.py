"""Where prompt-following is lost: in the autoencoder, in the last steps of sampling, or in the first ones.

`python -m pretraining.diagnose` reads composites, the same through the autoencoder, their latents noised to some
timesteps and denoised from there, and pictures from noise alone, with readers on MobileNetV2 that are fitted on few
pictures: quick, and for the next step of a training, not for a report (`pretraining.measure` is for that). It reads the
checkpoints under `--work` or any pipeline folder, and writes nothing but the readers' features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from orthoplex.evaluation import MobileNetEncoder
from pretraining.autoencoder import picture_tensor
from pretraining.export import pipeline, sheet
from pretraining.readers import SHOWN, Features, fit_readers, glance
from pretraining.real_pictures import asked, real_features
from pretraining.refine import denoise


def denoised(
    pipe: StableDiffusionPipeline,
    clean: Tensor,
    contexts: tuple[Tensor, Tensor],
    first: int,
    guidance: float,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
    """Latents (n, c, h, w) noised to the step numbered `first` and denoised from there; from noise alone if it is 0.

    `contexts` are those of the empty prompt (1, tokens, width) and of the prompts (n, tokens, width).
    """
    scheduler: DDIMScheduler = pipe.scheduler
    noise = torch.randn(clean.shape, generator=generator)
    start = scheduler.timesteps[first]
    latents = scheduler.add_noise(clean, noise, start[None].expand(len(clean))) if first else noise
    return denoise(pipe, latents, scheduler.timesteps[first:], contexts, guidance, eta=eta, generator=generator)


@torch.no_grad()
def ways(
    pipe: StableDiffusionPipeline,
    composites: Sequence[Image.Image],
    prompts: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, list[Image.Image]]:
    """The pictures to be read: composites, the same through the autoencoder, and denoised ones."""
    x = picture_tensor(np.stack([np.asarray(picture) for picture in composites]))
    scale = pipe.vae.config.scaling_factor
    latents = torch.cat([pipe.vae.encode(part).latent_dist.mode() for part in x.split(40)]) * scale

    def decoded(z: Tensor) -> list[Image.Image]:
        parts = [pipe.image_processor.postprocess(pipe.vae.decode(part / scale).sample) for part in z.split(40)]
        return [picture for part in parts for picture in part]

    made = {"composites": list(composites), "autoencoder": decoded(latents)}
    pipe.scheduler.set_timesteps(options.steps)
    empty = pipe.encode_prompt([""], "cpu", 1, False)[0]
    for first in options.first:
        parts, generator = [], torch.Generator().manual_seed(first)
        for start in range(0, len(prompts), 40):
            told = pipe.encode_prompt(list(prompts[start : start + 40]), "cpu", 1, False)[0]
            clean = latents[start : start + 40]
            parts.append(denoised(pipe, clean, (empty, told), first, options.guidance, options.eta, generator))
        label = f"from t = {int(pipe.scheduler.timesteps[first])}" if first else "from noise"
        made[label] = decoded(torch.cat(parts))
    return made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--base", type=Path, help="pipeline folder; the checkpoints under --work where none is named")
    parser.add_argument("--prompts", type=int, default=160)
    parser.add_argument("--fit", type=int, default=6000, help="real composites the readers are fitted on")
    parser.add_argument("--pixels", type=int, default=128, help="pictures are read in this size")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--first", type=int, nargs="*", default=[16, 4, 0], help="steps to begin with")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--eta", type=float, default=0.0, help="1 adds noise in every step, 0 none")
    parser.add_argument("--sheet", type=Path, help="draw the first pictures of every way into this file")
    options = parser.parse_args()
    encoder = MobileNetEncoder(picture_size=options.pixels)
    readers = fit_readers(*real_features(options.work, options.fit, encoder), encoder.name)
    unseen, wanted, _, prompts = asked(options.prompts)
    if options.base:
        pipe = StableDiffusionPipeline.from_pretrained(options.base, dtype=torch.float32, safety_checker=None)
    else:
        pipe = pipeline(options.work)
    found = ways(pipe, unseen, prompts, options)
    ceiling: dict[str, float] = {}
    for label, pictures in found.items():
        read = glance(readers.right(Features.of(pictures, wanted, encoder), wanted))
        ceiling = ceiling or read
        print(
            f"{label:14}", *(f"{name} {read[name]:.3f} ({read[name] / ceiling[name]:.0%})" for name in SHOWN), sep="  "
        )
    if options.sheet:
        columns = min(16, len(unseen))
        shown = [(picture, label) for label, pictures in found.items() for picture in pictures[:columns]]
        sheet([picture for picture, _ in shown], [label for _, label in shown], columns, options.sheet)


if __name__ == "__main__":
    main()
