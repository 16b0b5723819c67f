"""Pictures that the base makes while a concept is in training."""

from collections.abc import Sequence

import torch

from orthoplex.models import Base, PictureRequest, Pictures, finished, precision
from orthoplex.training.config import TrainingConfig


def make_pictures(base: Base, config: TrainingConfig, prompts: Sequence[str], *, seed: int) -> Pictures:
    """Return one picture of each prompt, with whatever is attached now.

    Args:
        base: The base.
        config: For the number of denoising steps, the guidance and the precision.
        prompts: At least one.
        seed: Decides the noise; the library's own random state is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    request = PictureRequest(prompts, generator, config.num_inference_steps, config.guidance_scale)
    with base.locked(), precision(config.mixed_precision, base.device):
        return finished(base.family.picture(request))
