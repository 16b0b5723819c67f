"""Pictures that the base makes while a concept is in training."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from orthoplex.concepts import KINDS, Concept, encode_thumbnail
from orthoplex.files import summary_of
from orthoplex.models import Base, PictureRequest, Pictures, finished, precision
from orthoplex.training.config import TrainingConfig

_LOG = logging.getLogger(__name__)


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
        config: Of its training; the picture is made as sample pictures are, in no more steps than the base has.
    """
    prompt = KINDS[concept.manifest.kind].captions[0].format(trigger=concept.manifest.trigger)
    steps = min(config.num_inference_steps, base.family.allowed_inference_steps.highest)
    try:
        with base.folded(concept):
            pictures = make_pictures(base, replace(config, num_inference_steps=steps), [prompt], seed=config.seed)
    except Exception as error:  # noqa: BLE001  (a picture for galleries is worth no training)
        _LOG.warning("concept %s has no thumbnail, which failed: %s", concept.name, summary_of(error))
        return concept
    if pictures.pixels is None or not np.isfinite(pictures.pixels).all():
        _LOG.warning("concept %s has no thumbnail: its picture holds numbers that are not finite", concept.name)
        return concept
    thumbnail = encode_thumbnail(pictures.images()[0])
    return replace(concept, manifest=replace(concept.manifest, thumbnail=thumbnail))
