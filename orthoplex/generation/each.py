"""Pictures of several prompts, each with concepts of its own, in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from PIL import Image

from orthoplex.concepts import Concept
from orthoplex.errors import ConfigurationError, PromptError
from orthoplex.generation.drawing import (
    GenerationProgress,
    after_steps,
    batches_of,
    check_numbers,
    drawn,
    numbers_or_defaults,
)
from orthoplex.merging import Merge
from orthoplex.models import Base, Foldable, PictureRequest, Precision, Prompt, read_prompt


@final
@dataclass(frozen=True, eq=False)
class Picture:
    """One picture that is asked for.

    Attributes:
        prompt: See ``generate``; plain words, as long as the text encoders read.
        merge: The merge or concept of this picture; None is the base.
        seed: Of its noise.
    """

    prompt: str
    merge: Foldable | None = None
    seed: int = 0


def generate_each(
    base: Base,
    pictures: Sequence[Picture],
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    mixed_precision: Precision = "no",
    progress: Callable[[GenerationProgress], None] | None = None,
) -> list[Image.Image]:
    """Make pictures with other concepts in each, ``BATCH_SIZE`` at a time; changes are beside the layers.

    A picture is the one that ``generate(…, unmerged=True)`` makes of its prompt and merge, but for rounding: processors
    multiply batches of other sizes in another order.

    Args:
        base: The base, with nothing folded in.
        pictures: At least one.
        num_inference_steps: See ``generate``.
        guidance_scale: See ``generate``.
        negative_prompt: See ``generate``; for all, and without concepts.
        mixed_precision: See ``generate``.
        progress: See ``generate``.

    Raises:
        PromptError: For a prompt that ``read_prompt`` refuses, that has weights or is too long, or that names a concept
            of another picture.
        ConfigurationError: See ``generate``; or without pictures.
        BaseModelError: See ``Base.rows``.
    """
    num_inference_steps, guidance_scale = numbers_or_defaults(base, num_inference_steps, guidance_scale)
    if not pictures:
        raise ConfigurationError("0 pictures were asked for; at least 1 is allowed")
    for picture in pictures:
        if not isinstance(picture.merge, Concept | Merge | None):
            raise ConfigurationError(
                f"the merge of picture {picture.prompt!r} is a {type(picture.merge).__name__}; allowed are a merge, a "
                "concept and None"
            )
        check_numbers(base, 1, picture.seed, num_inference_steps, guidance_scale, mixed_precision)
    batches, made = batches_of(len(pictures)), list[Image.Image]()
    for number, batch in enumerate(batches):
        rows = [pictures[i] for i in batch]
        with base.locked(), base.rows([picture.merge for picture in rows]):
            base.family.channels_last()
            prompts = [_read(base, picture) for picture in rows]
            away_from = _plain(base, read_prompt(negative_prompt, (), key="negative_prompt"))
            noise = [torch.Generator().manual_seed(picture.seed) for picture in rows]
            request = PictureRequest(prompts, noise, num_inference_steps, guidance_scale, away_from)
            named = ", ".join(picture.prompt for picture in rows)
            after_step = after_steps(base, progress, number, len(batches))
            made.extend(drawn(base, request, named, mixed_precision, after_step))
    return made


def _read(base: Base, picture: Picture) -> str:
    """A prompt as the text encoders read it, with the tokens of its own concepts alone."""
    own = set() if picture.merge is None else set(picture.merge.tokens)
    others = {token for token in base.tokens if token not in own}
    recipe = None if picture.merge is None else picture.merge.recipe
    absent, words = ((), {}) if recipe is None else (recipe.absent_names, recipe.words)
    prompt = read_prompt(
        picture.prompt, [token for token in base.tokens if token not in others], absent=absent, words=words
    )
    return _plain(base, prompt)


def _plain(base: Base, prompt: Prompt) -> str:
    """A prompt as the text encoders read it.

    Raises:
        PromptError: If it has weights or is too long for a batch of several prompts.
    """
    if not (prompt.is_plain and base.family.words.reads_whole(prompt.text)):
        raise PromptError(
            f"{prompt.shown} has weights, BREAK, or more words than are read at once; allowed in a batch of several "
            "prompts are plain ones"
        )
    return prompt.text
