"""A prompt becomes pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from orthoplex.errors import ConfigurationError, PromptError
from orthoplex.generation.prompts import contract_prompt, expand_prompt, without_concepts
from orthoplex.models import Base, Foldable, Precision, channels_last, chosen_precision, precision
from orthoplex.options import Limits, checked

BATCH_SIZE = 8


@dataclass(frozen=True)
class GenerationProgress:
    """How far a call of ``generate`` is.

    Attributes:
        step: Denoising steps done, over all batches.
        steps: Denoising steps in all.
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
        negative_prompt: What guidance leads away from.
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
        channels_last(base.pipeline)
        asked = (("prompt", prompt), ("negative_prompt", negative_prompt))
        texts = {key: _contracted(base, key, text) for key, text in asked}
        batches = [range(i, min(i + BATCH_SIZE, num_images)) for i in range(0, num_images, BATCH_SIZE)]
        pictures: list[Image.Image] = []
        run: Any = base.pipeline_of_a_call()  # diffusers annotates its callback and result too narrowly
        for number, batch in enumerate(batches):
            with precision(mixed_precision, base.device):
                result = run(
                    **texts,
                    num_images_per_prompt=len(batch),
                    generator=[torch.Generator().manual_seed(seed + i) for i in batch],
                    num_inference_steps=num_inference_steps,
                    guidance_scale=guidance_scale,
                    callback_on_step_end=_reporting(progress, number, len(batches), num_inference_steps),
                    output_type="np",
                )
            _check_finite(result.images, prompt, guidance_scale)
            pictures.extend(base.pipeline.image_processor.numpy_to_pil(result.images))
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
    """What made one picture, as JSON values for ``save_png``.

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
    contracted = contract_prompt(text, base.tokens)
    _check_length(base, expand_prompt(text, base.tokens), key)
    return contracted


def _check_text(text: str, key: str) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{key} is {text!r}, allowed is one text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"{key} {text!r} is no UTF-8: {error}") from error


def _check_finite(images: np.ndarray, prompt: str, guidance_scale: float) -> None:
    if not np.isfinite(images).all():
        raise ConfigurationError(
            f"pictures of {prompt!r} hold numbers that are not finite; guidance_scale is {guidance_scale}, "
            "allowed is what the base can follow"
        )


def _check_length(base: Base, text: str, key: str) -> None:
    tokenizer = base.pipeline.tokenizer
    length, limit = len(tokenizer(text, truncation=False, verbose=False).input_ids), tokenizer.model_max_length
    if length > limit:
        raise PromptError(
            f"{key} '{text}' has {length - 2} tokens, base '{base.identity.name}' reads at most {limit - 2}"
        )


def _reporting(
    progress: Callable[[GenerationProgress], None] | None, batch: int, num_batches: int, steps: int
) -> Callable[[object, int, object, dict[str, Any]], dict[str, Any]] | None:
    if progress is None:
        return None

    def report(pipeline: object, step: int, timestep: object, values: dict[str, Any]) -> dict[str, Any]:
        progress(GenerationProgress(step=batch * steps + step + 1, steps=num_batches * steps))
        return values

    return report
