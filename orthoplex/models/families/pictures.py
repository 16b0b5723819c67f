"""What is asked of a base when it makes pictures, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orthoplex.errors import OrthoplexError
from orthoplex.models.families.conditioning import Conditioning


@final
@dataclass(frozen=True, eq=False)
class PictureRequest:
    """A batch of pictures.

    Attributes:
        prompts: At least one: plain texts, or what ``Family.condition_weighted`` made of one other prompt.
        generators: Decides the noise: one generator for the batch, or one for each picture; on the CPU.
        num_inference_steps: Denoising steps.
        guidance_scale: Strength of guidance; ``Family.least_guidance`` is none.
        negative_prompt: What guidance leads away from.
        pictures_per_prompt: Pictures of each prompt; those of one prompt follow one another.
        decoded: True for pixels; False for latents alone.
    """

    prompts: Sequence[str | Conditioning]
    generators: torch.Generator | Sequence[torch.Generator]
    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str | Conditioning = ""
    pictures_per_prompt: int = 1
    decoded: bool = True

    @property
    def noise_source(self) -> torch.Generator | list[torch.Generator]:
        """The generators as diffusers takes them."""
        return self.generators if isinstance(self.generators, torch.Generator) else list(self.generators)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.prompts) * self.pictures_per_prompt


@final
@dataclass(frozen=True)
class PictureStep:
    """A denoising step that is done.

    Attributes:
        step: How many are done, from 1.
        steps: How many there are in all; some schedulers take more of them than were asked for.
    """

    step: int
    steps: int


@final
@dataclass(frozen=True, eq=False)
class Pictures:
    """Finished pictures.

    Attributes:
        latents: ``(n, c, h, w)``, as the denoiser sees them.
        pixels: ``(n, height, width, 3)`` float32 in [0, 1]; None where only latents were asked for.
    """

    latents: Tensor
    pixels: np.ndarray | None = None

    def images(self) -> list[Image.Image]:
        """The pictures.

        Raises:
            OrthoplexError: When only latents were asked for.
        """
        if self.pixels is None:
            raise OrthoplexError("pictures were asked for as latents alone; allowed are images of decoded ones")
        return [Image.fromarray(picture) for picture in (self.pixels * 255).round().astype("uint8")]


def finished(steps: Iterable[PictureStep | Pictures], report: Callable[[PictureStep], None] | None = None) -> Pictures:
    """Go through the steps of ``Family.picture`` to the pictures at its end.

    Args:
        steps: The iterator.
        report: Called after every denoising step.
    """
    pictures = None
    for step in steps:
        if isinstance(step, Pictures):
            pictures = step
        elif report is not None:
            report(step)
    if pictures is None:
        raise OrthoplexError("a base ended without pictures; allowed is pictures as the last thing that it yields")
    return pictures
