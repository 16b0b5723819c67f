"""Pictures of a prompt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from orthoplex.errors import ConfigurationError
from orthoplex.models import (
    Base,
    Conditioning,
    Foldable,
    PictureRequest,
    PictureStep,
    Precision,
    Prompt,
    chosen_precision,
    concept_names,
    finished,
    precision,
    read_prompt,
)
from orthoplex.options import Limits, checked

BATCH_SIZE = 8
_LOG = logging.getLogger(__name__)
_USUAL_GUIDANCE = 30.0
"""A larger one is named when a picture is not finite."""


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
    unmerged: bool | None = None,
    num_images: int = 1,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    mixed_precision: Precision = "no",
    progress: Callable[[GenerationProgress], None] | None = None,
    finish: Callable[[int, Image.Image], None] | None = None,
    expect_names: bool = True,
    live: bool = False,
) -> list[Image.Image]:
    """Make pictures of a prompt; threads that share the base wait for one another.

    Args:
        base: The base, with or without something folded in.
        prompt: As ``read_prompt`` reads it; ``<name>`` calls a concept, unless its strength is 0.
        merge: A merge or concept to put in for this call only.
        unmerged: See ``Base.fold``.
        num_images: How many pictures.
        seed: Picture ``i`` starts from noise of a CPU generator seeded ``seed + i``, whatever the device.
        num_inference_steps: Denoising steps per picture; by default ``Base.picture_defaults``.
        guidance_scale: Strength of guidance, ``least_guidance`` of the family is none; by default likewise.
        negative_prompt: The text that guidance leads away from.
        mixed_precision: ``"bf16"`` (autocast) for nearly the same picture, faster on some processors; ``"auto"`` there.
        progress: Called after every denoising step; the base is locked: it must not wait for a thread that wants it.
        finish: Called with each number and picture once its batch of ``BATCH_SIZE`` is made; likewise.
        expect_names: True logs concepts of ``merge`` that no prompt names, or that none in the base is named.
        live: True lets other threads change the base's blend between two steps; what the text encoders said stays.

    Raises:
        PromptError: For a prompt that ``read_prompt`` refuses, or weights and lengths that the base does not read.
        MissingExtraError: For weights, ``BREAK`` or a long prompt without the package compel.
        ConfigurationError: For a number outside its range, or pictures that are not finite, as a huge guidance gives.
        BaseModelError: If ``merge`` does not fit the base.
    """
    num_inference_steps, guidance_scale = numbers_or_defaults(base, num_inference_steps, guidance_scale)
    check_numbers(base, num_images, seed, num_inference_steps, guidance_scale, mixed_precision)
    pictures: list[Image.Image] = []
    with base.locked(), base.folded(merge, unmerged=unmerged) if merge is not None else nullcontext():
        base.family.channels_last()
        read = _read(base, prompt=prompt, negative_prompt=negative_prompt)
        if expect_names:
            _warn_of_names(base, read, every=merge is not None)
        wanted, unwanted = _requested(base, read, mixed_precision)
        batches = batches_of(num_images)
        for number, batch in enumerate(batches):
            noise = [torch.Generator().manual_seed(seed + i) for i in batch]
            request = PictureRequest([wanted], noise, num_inference_steps, guidance_scale, unwanted, len(batch))
            after_step = after_steps(base, progress, number, len(batches), live=live)
            pictures.extend(drawn(base, request, prompt, mixed_precision, after_step))
            if finish is not None:
                for i in batch:
                    finish(i, pictures[i])
    return pictures


def drawn(
    base: Base,
    request: PictureRequest,
    prompt: str,
    mixed_precision: Precision,
    after_step: Callable[[PictureStep], None] | None,
) -> list[Image.Image]:
    """Make the pictures of a request, within the base's lock.

    Args:
        base: The base.
        request: What is asked for.
        prompt: Its prompt, for errors.
        mixed_precision: See ``generate``.
        after_step: Called after every denoising step.

    Raises:
        ConfigurationError: If pictures are not finite.
    """
    with precision(mixed_precision, base.device):
        made = finished(base.family.picture(request), after_step)
    _check_finite(base, made.pixels, prompt, request.guidance_scale)
    return made.images()


def batches_of(count: int) -> list[range]:
    """Return the numbers of pictures that are made at a time, ``BATCH_SIZE`` at most."""
    return [range(i, min(i + BATCH_SIZE, count)) for i in range(0, count, BATCH_SIZE)]


def picture_recipe(
    prompt: str,
    *,
    base: Base,
    merge: Foldable | None = None,
    unmerged: bool | None = None,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    mixed_precision: Precision = "no",
) -> dict[str, Any]:
    """Return the recipe of one picture as JSON values for ``save_png``.

    ``dtype``, ``quantise`` and ``unmerged`` are in it where they are not ``float32``, none and False.

    Args:
        prompt: As given to ``generate``.
        base: The base.
        merge: As given to ``generate``; None takes what is folded into the base now.
        unmerged: As given to ``generate``.
        seed: The seed of this one picture (``seed + i`` of ``generate``).
        num_inference_steps: As given to ``generate``.
        guidance_scale: As given to ``generate``.
        negative_prompt: As given to ``generate``.
        mixed_precision: As given to ``generate``; the recipe holds what ``"auto"`` stood for.
    """
    identity = base.identity
    num_inference_steps, guidance_scale = numbers_or_defaults(base, num_inference_steps, guidance_scale)
    folded = merge.recipe if merge is not None else base.recipe
    dtype = str(base.dtype).removeprefix("torch.")
    is_unmerged = unmerged is True if merge is not None else base.is_unmerged
    unusual = {"dtype": None if dtype == "float32" else dtype, "quantise": base.quantisation}
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "mixed_precision": chosen_precision(mixed_precision, base.device),
        "base": {"family": identity.family, "hash": identity.hash, "name": identity.name},
        "merge": None if folded is None else folded.to_json(),
        **{key: value for key, value in unusual.items() if value is not None},
        **({"unmerged": True} if is_unmerged else {}),
    }


def numbers_or_defaults(base: Base, num_inference_steps: int | None, guidance_scale: float | None) -> tuple[int, float]:
    """Return the numbers that are given, and the base's own in the place of None."""
    steps, guidance = base.picture_defaults
    return (
        steps if num_inference_steps is None else num_inference_steps,
        guidance if guidance_scale is None else guidance_scale,
    )


def check_numbers(
    base: Base, num_images: int, seed: int, num_inference_steps: int, guidance_scale: float, mixed_precision: Precision
) -> None:
    """Refuse numbers that no picture can be made with.

    Raises:
        ConfigurationError: Names the number, its value and what is allowed.
    """
    for name, count in (("num_images", num_images), ("num_inference_steps", num_inference_steps)):
        checked(name, count, int, Limits(lowest=1))
    checked("seed", seed, int, Limits(lowest=0, highest=2**63 - 1))
    checked("guidance_scale", guidance_scale, float, Limits(lowest=0))
    checked("mixed_precision", mixed_precision, Precision)
    base.check_inference_steps("num_inference_steps", num_inference_steps)


def _absent(base: Base) -> tuple[str, ...]:
    """The concepts in the base at strength 0."""
    return base.recipe.absent_names if base.recipe is not None else ()


def _read(base: Base, prompt: str, negative_prompt: str) -> list[Prompt]:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    absent, words = _absent(base), {} if base.recipe is None else base.recipe.words
    return [read_prompt(text, base.tokens, absent=absent, words=words, key=key) for key, text in texts.items()]


def _requested(base: Base, prompts: Sequence[Prompt], mixed_precision: Precision) -> list[str | Conditioning]:
    with precision(mixed_precision, base.device):
        return [base.family.requested(prompt) for prompt in prompts]


def _warn_of_names(base: Base, prompts: Sequence[Prompt], *, every: bool) -> None:
    _warn_of_unnamed(base, prompts, every=every)
    _warn_of_lines(base, prompts[0])


def _warn_of_unnamed(base: Base, prompts: Sequence[Prompt], *, every: bool) -> None:
    """Log the loaded concepts that no prompt names; where not every one is expected, only if none is named."""
    named = {name for prompt in prompts for name in prompt.concepts}
    loaded = [name for name in concept_names(base.tokens) if name not in _absent(base)]
    unnamed = [name for name in loaded if name not in named]
    if unnamed and (every or len(unnamed) == len(loaded)):
        _LOG.warning(
            "%s %s loaded and not named in the prompt; write %s",
            ", ".join(unnamed),
            "is" if len(unnamed) == 1 else "are",
            ", ".join(f"<{name}>" for name in unnamed),
        )


def _warn_of_lines(base: Base, prompt: Prompt) -> None:
    """Log that lines are one text where several of them name concepts: other programs read them as regions."""
    lines = [line for line in prompt.written.splitlines() if line.strip()]
    if sum(any(token in line for token in base.tokens) for line in lines) > 1:
        _LOG.warning("prompt has %d lines, which are read as one text; say in words where things are", len(lines))


def _check_finite(base: Base, pixels: np.ndarray | None, prompt: str, guidance_scale: float) -> None:
    """Refuse numbers that are not finite; names the settings that are large, or all if none is."""
    if pixels is None or np.isfinite(pixels).all():
        return
    large = {} if base.recipe is None else base.recipe.large_strengths
    if guidance_scale > _USUAL_GUIDANCE or not large:
        large = {"guidance_scale": guidance_scale, **large}
    shown = ", ".join(f"{name} is {value}" for name, value in large.items())
    if base.recipe is not None and large.keys() == {"guidance_scale"} and guidance_scale <= _USUAL_GUIDANCE:
        shown = f"{shown}, concepts are {base.recipe.strengths}"
    raise ConfigurationError(
        f"pictures of {prompt!r} hold numbers that are not finite; {shown}; allowed is what the base can follow"
    )


def after_steps(
    base: Base,
    progress: Callable[[GenerationProgress], None] | None,
    batch: int,
    num_batches: int,
    *,
    live: bool = False,
) -> Callable[[PictureStep], None] | None:
    """Return what is done after every step: a report, and, in a live picture, the changes that wait."""
    if progress is None and not live:
        return None

    def after_step(done: PictureStep) -> None:
        if progress is not None:
            with base.between_steps():
                progress(GenerationProgress(step=batch * done.steps + done.step, steps=num_batches * done.steps))
        if live:
            base.run_waiting()

    return after_step
