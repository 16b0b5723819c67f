"""Pictures that the base makes while a concept is in training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from orthoplex.concepts import KINDS, Concept, Token, encode_thumbnail
from orthoplex.files import summary_of
from orthoplex.models import (
    Base,
    Conditioning,
    PictureRequest,
    Pictures,
    escaped,
    finished,
    precision,
    read_prompt,
    with_words,
)
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset

_LOG = logging.getLogger(__name__)


def sample_prompts(dataset: ConceptDataset, config: TrainingConfig) -> tuple[str, ...]:
    """Return the prompts of a training's sample pictures, with the trigger in them as text.

    Args:
        dataset: For the trigger.
        config: For the prompts; where it has none, the first template of the concept's kind is taken.
    """
    texts, trigger = config.sample_prompts or KINDS[dataset.kind].captions[:1], escaped(dataset.trigger)
    texts = tuple(text.replace("{trigger}", trigger) for text in texts)
    return tuple(with_words(text, {dataset.token[1:-1]: dataset.word}) for text in texts) if dataset.word else texts


def check_sample_prompts(
    base: Base, dataset: ConceptDataset, config: TrainingConfig, tokens: Mapping[str, Token]
) -> None:
    """Refuse sample prompts that no pictures can be made of; nothing where a training makes none.

    Args:
        base: The base, without the concept's tokens.
        dataset: See ``sample_prompts``.
        config: See ``sample_prompts``.
        tokens: The concept's tokens as they begin.

    Raises:
        PromptError: See ``read_prompt`` and ``Family.requested``.
        MissingExtraError: See ``Family.requested``.
    """
    if config.sample_every > 0:
        with base.with_tokens(tokens):
            _requested(base, sample_prompts(dataset, config), key="sample_prompts")


def _requested(base: Base, prompts: Sequence[str], *, key: str) -> list[str | Conditioning]:
    return [base.family.requested(read_prompt(prompt, base.tokens, key=key)) for prompt in prompts]


def make_pictures(
    base: Base, config: TrainingConfig, prompts: Sequence[str], *, seed: int, key: str = "prompt"
) -> Pictures:
    """Return one picture of each prompt, with whatever is attached now.

    Args:
        base: The base.
        config: For the number of denoising steps, the guidance and the precision.
        prompts: At least one, as ``read_prompt`` reads them.
        seed: Decides the noise; the library's own random state is not touched.
        key: What the prompts are called in errors.

    Raises:
        PromptError: See ``read_prompt`` and ``Family.requested``.
        MissingExtraError: See ``Family.requested``.
    """
    generator = torch.Generator().manual_seed(seed)
    with base.locked(), precision(config.mixed_precision, base.device):
        requested = _requested(base, prompts, key=key)
        request = PictureRequest(requested, generator, config.num_inference_steps, config.guidance_scale)
        return finished(base.family.picture(request))


def thumbnail_of(config: TrainingConfig, kind: str) -> str:
    """Return what the thumbnail of a concept is: ``"photo"``, ``"generated"`` or ``"none"``.

    Args:
        config: Of its training.
        kind: One of ``KINDS``.
    """
    if config.thumbnail != "auto":
        return config.thumbnail
    return "generated" if kind == "person" else "photo"


def with_generated_thumbnail(base: Base, concept: Concept, config: TrainingConfig) -> Concept:
    """Return a concept whose thumbnail is a picture that it makes, always of the same noise.

    Only the manifest changes. Where the picture fails, or holds numbers that are not finite, there is no thumbnail.

    Args:
        base: Its base, with nothing folded in.
        concept: The finished concept.
        config: Of its training; the picture is made as sample pictures are.
    """
    prompt = KINDS[concept.manifest.kind].captions[0].format(trigger=escaped(concept.manifest.trigger))
    try:
        with base.folded(concept):
            pictures = make_pictures(base, config, [prompt], seed=config.seed)
    except Exception as error:  # noqa: BLE001  (a picture for galleries is worth no training)
        _LOG.warning("concept %s has no thumbnail, which failed: %s", concept.name, summary_of(error))
        return concept
    if pictures.pixels is None or not np.isfinite(pictures.pixels).all():
        _LOG.warning("concept %s has no thumbnail: its picture holds numbers that are not finite", concept.name)
        return concept
    thumbnail = encode_thumbnail(pictures.images()[0])
    return replace(concept, manifest=replace(concept.manifest, thumbnail=thumbnail))
