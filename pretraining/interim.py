"""What a run would draw now: `python -m pretraining.interim` draws the showcase's prompts with its averaged weights.

The decoder is that of the base that ships, which was refined for another denoiser; so this is a look, and no measure.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from pretraining.denoiser import Denoiser, DenoiserConfig
from pretraining.export import denoiser_average, round_trained, sample_sheet
from pretraining.muon import named


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument(
        "--base", type=Path, default=Path("orthoplex/vignette/base"), help="of the same words and latents"
    )
    parser.add_argument("--output", type=Path, default=Path("results/vignette/next/interim.jpg"))
    options = parser.parse_args()
    pipe = StableDiffusionPipeline.from_pretrained(options.base, dtype=torch.float32, safety_checker=None)
    denoiser = Denoiser(len(pipe.tokenizer))
    denoiser.load_state_dict(named(denoiser, denoiser_average(options.work)))
    pipe.unet.load_state_dict(denoiser.unet.state_dict())
    pipe.text_encoder.load_state_dict(denoiser.text_encoder.state_dict())
    round_trained(pipe, DenoiserConfig.rounding_steps)
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        sample_sheet(Path(folder), options.output)


if __name__ == "__main__":
    main()
