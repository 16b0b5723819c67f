"""Pictures that the base makes while a concept is in training."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from orthoplex.models import Base, precision
from orthoplex.training.config import TrainingConfig


@torch.no_grad()
def run_pipeline(
    base: Base, config: TrainingConfig, prompts: Sequence[str], *, seed: int, output_type: Literal["pil", "latent"]
) -> Any:  # noqa: ANN401  (a list of pictures or a tensor, as diffusers has it)
    """Return one picture, or its latents, for each prompt, with whatever is attached now.

    Args:
        base: The base.
        config: For the number of denoising steps, the guidance and the precision.
        prompts: At least one.
        seed: Decides the noise; the library's own random state is not touched.
        output_type: ``"pil"`` for a list of pictures, ``"latent"`` for ``(n, c, h, w)``.
    """
    with base.locked(), precision(config.mixed_precision, base.device):
        pipeline: Any = base.pipeline_of_a_call()
        return pipeline(
            list(prompts),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            output_type=output_type,
        ).images
