"""Prior pictures: pictures that the base itself makes of foreign prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.models import Base, ItemSizes, PictureRequest, finished, precision


@dataclass(frozen=True, eq=False)
class PriorPictures:
    """Pictures without the concept: those that the base made of plain foreign prompts, or given ones of the class.

    Attributes:
        latents: ``(n, c, h, w)``.
        ids: Token ids of their prompts, ``(n, length)``.
        sizes: What was done to each before it became latents.
    """

    latents: Tensor
    ids: Tensor
    sizes: tuple[ItemSizes, ...]


@torch.no_grad()
def make_prior_pictures(base: Base, options: ErasureOptions, prompts: Sequence[str]) -> PriorPictures:
    """Let the base picture ``options.prior_pictures`` foreign prompts; only latents are made, nothing is decoded."""
    chosen = [prompts[i % len(prompts)] for i in range(options.prior_pictures)]
    latents = []
    for start in range(0, len(chosen), options.batch_size):
        request = PictureRequest(
            chosen[start : start + options.batch_size],
            torch.Generator().manual_seed(options.seed + start),
            options.prior_inference_steps,
            options.guidance_scale,
            decoded=False,
        )
        with base.locked(), precision(options.mixed_precision, base.device):
            latents.append(finished(base.family.picture(request)).latents.float())
    side = base.family.resolution
    return PriorPictures(
        torch.cat(latents), base.family.words.ids(chosen), (ItemSizes.whole(side, side),) * len(chosen)
    )
