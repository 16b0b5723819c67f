"""Draw with plain diffusers, of whatever release runs this file, and take down what it loaded.

Usage: ``python plain_pictures.py FOLDER OUTPUT.npz PROMPT …``; it imports nothing of Orthoplex.
"""

from __future__ import annotations

import hashlib
import json
import sys

import diffusers
import numpy
import torch
import transformers
from diffusers import StableDiffusionPipeline

STEPS, GUIDANCE, SEEDS = 12, 4.0, (0, 1)


def main(folder: str, output: str, *prompts: str) -> None:
    """Write pictures, token numbers and a digest of every weight."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pictures = [
        numpy.asarray(
            pipeline(
                prompt,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(seed),
            ).images[0]
        )
        for prompt in prompts
        for seed in SEEDS
    ]
    weights = {
        f"{component}.{name.removeprefix('text_model.')}": [
            str(values.dtype),
            hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest(),
        ]
        for component in ("unet", "vae", "text_encoder")
        for name, values in pipeline.components[component].state_dict().items()
        if not name.endswith("position_ids")
    }
    facts = {
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "weights": weights,
        "tokens": [pipeline.tokenizer(prompt).input_ids for prompt in prompts],
    }
    numpy.savez(output, pictures=numpy.stack(pictures), facts=numpy.asarray(json.dumps(facts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
