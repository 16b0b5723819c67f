"""Pictures of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from orthoplex.errors import ConfigurationError, PromptError
from orthoplex.generation.prompt_tokens import contract_prompt, expand_prompt, without_concepts
from orthoplex.models import (
    Base,
    Foldable,
    PictureRequest,
    PictureStep,
    Precision,
    chosen_precision,
    finished,
    precision,
)
from orthoplex.options import Limits, checked

BATCH_SIZE = 8


@dataclass(frozen=True)
class GenerationProgress:
    """The progress of a call of ``generate``.

    Attributes:
        step: Denoising steps done, over all batches.
        steps: Denoising steps in all; some schedulers take more than were asked for.
    """

    step: int
    steps: int


def generate(
    base: Base,
    prompt: str,
    *,
    merge: Foldable | None = None,
    num_images: int = 1,
    seed: int = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 4.0,
    negative_prompt: str = "",
    mixed_precision: Precision = "no",
    progress: Callable[[GenerationProgress], None] | None = None,
) -> list[Image.Image]:
    """Make pictures of a prompt; threads that share the base wait for one another.

    Picture ``i`` starts from noise of its own CPU generator, seeded ``seed + i``: it does not depend on ``num_images``
    nor on the device, but for rounding.

    Args:
        base: The base, with or without something folded in.
        prompt: Text; ``<name>`` calls a concept that is folded in, and is left out where its strength is 0.
        merge: A merge or concept to fold in for this call only.
        num_images: How many pictures.
        seed: Seed of the first picture.
        num_inference_steps: Denoising steps per picture.
        guidance_scale: Strength of classifier-free guidance; 1 is none.
        negative_prompt: The text that guidance leads away from.
        mixed_precision: ``"bf16"`` (autocast) for nearly the same picture, faster on some processors; ``"auto"`` there.
        progress: Called after every denoising step; the base is locked: it must not wait for a thread that wants it.

    Raises:
        PromptError: For a ``<name>`` that is not folded in, a prompt longer than the text encoder reads, or one that
            is no text.
        ConfigurationError: For a number outside its range, or pictures that are not finite, as a huge guidance gives.
        BaseModelError: If ``merge`` does not fit the base.
    """
    _check_numbers(num_images, seed, num_inference_steps, guidance_scale)
    checked("mixed_precision", mixed_precision, Precision)
    base.check_inference_steps("num_inference_steps", num_inference_steps)
    with base.locked(), base.folded(merge) if merge is not None else nullcontext():
        base.family.channels_last()
        prompts = [_contracted(base, "prompt", prompt)]
        negative_prompt = _contracted(base, "negative_prompt", negative_prompt)
        batches = [range(i, min(i + BATCH_SIZE, num_images)) for i in range(0, num_images, BATCH_SIZE)]
        pictures: list[Image.Image] = []
        for number, batch in enumerate(batches):
            generators = [torch.Generator().manual_seed(seed + i) for i in batch]
            request = PictureRequest(
                prompts,
                generators,
                num_inference_steps,
                guidance_scale,
                negative_prompt,
                pictures_per_prompt=len(batch),
            )
            with precision(mixed_precision, base.device):
                made = finished(base.family.picture(request), _reporting(progress, number, len(batches)))
            _check_finite(made.pixels, prompt, guidance_scale)
            pictures.extend(made.images())
    return pictures


def picture_recipe(
    prompt: str,
    *,
    base: Base,
    merge: Foldable | None = None,
    seed: int = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 4.0,
    negative_prompt: str = "",
    mixed_precision: Precision = "no",
) -> dict[str, Any]:
    """Return the recipe of one picture as JSON values for ``save_png``.

    Args:
        prompt: As given to ``generate``.
        base: The base.
        merge: As given to ``generate``; None takes what is folded into the base now.
        seed: The seed of this one picture (``seed + i`` of ``generate``).
        num_inference_steps: As given to ``generate``.
        guidance_scale: As given to ``generate``.
        negative_prompt: As given to ``generate``.
        mixed_precision: As given to ``generate``; the recipe holds what ``"auto"`` stood for.
    """
    identity = base.identity
    folded = merge.recipe if merge is not None else base.recipe
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "mixed_precision": chosen_precision(mixed_precision, base.device),
        "base": {"family": identity.family, "hash": identity.hash, "name": identity.name},
        "merge": None if folded is None else folded.to_json(),
    }


def _check_numbers(num_images: int, seed: int, num_inference_steps: int, guidance_scale: float) -> None:
    for name, count in (("num_images", num_images), ("num_inference_steps", num_inference_steps)):
        checked(name, count, int, Limits(lowest=1))
    checked("seed", seed, int, Limits(lowest=0, highest=2**63 - 1))
    checked("guidance_scale", guidance_scale, float, Limits(lowest=0))


def _contracted(base: Base, key: str, text: str) -> str:
    """A prompt as the pipeline takes it: a token for every concept, whose vectors it spells out itself."""
    _check_text(text, key)
    text = without_concepts(text, base.recipe.absent_names if base.recipe is not None else ())
    expanded, contracted = expand_prompt(text, base.tokens), contract_prompt(text, base.tokens)
    room = base.family.words.room(contracted)
    if room.length > room.limit:
        raise PromptError(
            f"{key} '{expanded}' has {room.length} tokens, base '{base.identity.name}' reads at most {room.limit}"
        )
    return contracted


def _check_text(text: str, key: str) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{key} is {text!r}, allowed is one text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"{key} {text!r} is no UTF-8: {error}") from error


def _check_finite(pixels: np.ndarray | None, prompt: str, guidance_scale: float) -> None:
    if pixels is not None and not np.isfinite(pixels).all():
        raise ConfigurationError(
            f"pictures of {prompt!r} hold numbers that are not finite; guidance_scale is {guidance_scale}, "
            "allowed is what the base can follow"
        )


def _reporting(
    progress: Callable[[GenerationProgress], None] | None, batch: int, num_batches: int
) -> Callable[[PictureStep], None] | None:
    if progress is None:
        return None
    return lambda done: progress(
        GenerationProgress(step=batch * done.steps + done.step, steps=num_batches * done.steps)
    )
