"""Erasure in closed form: a trained concept becomes silent on inputs that do not hold it; nothing is trained for it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from orthoplex.concepts import Concept
from orthoplex.merging import silence
from orthoplex.models import Base, collected_grams, text_layers
from orthoplex.training.batches import seeded
from orthoplex.training.config import TrainingConfig
from orthoplex.training.foreign import (
    compose_foreign_prompts,
    draw_foreign_inputs,
    make_prior_pictures,
    random_vectors,
)
from orthoplex.training.inputs import gather_inputs
from orthoplex.training.prompts import default_foreign_prompts


@torch.no_grad()
def silenced(
    base: Base, concept: Concept, config: TrainingConfig, *, foreign_prompts: Sequence[str] | None = None
) -> Concept:
    """Return a concept whose weights say what they said under its own prompts, and next to nothing elsewhere.

    Every weight's change is solved for (``orthoplex.merging.silence``) from what its layer sees under prompts of
    the concept's own (``own_prompts``), with the concept in, and under foreign ones, among them tokens of concepts that
    do not exist. No training picture is needed, so that it works for any concept file. Its directions are no
    slot's afterwards.

    Args:
        base: The base, with nothing folded in.
        concept: The concept; a copy is returned.
        config: Its ``erasure`` is how much silence counts, ``erasure_prompts`` the number of foreign prompts;
            ``seed`` and ``batch_size`` count too, and, where a layer sees pictures, what prior pictures are made by.
        foreign_prompts: Prompts of the base's own words; None takes those that come with the base, or general ones.

    Raises:
        BaseModelError: When the concept does not fit the base.
    """
    if not concept.layers:
        return concept
    prompts = default_foreign_prompts(base) if foreign_prompts is None else foreign_prompts
    own = gather_inputs(base, [concept], with_foreign=False).concepts[concept.content_hash]
    foreign = _foreign_grams(base, concept, config, prompts)
    layers = {
        layer: silence(change, own[layer], foreign[layer], weight=config.erasure)
        for layer, change in concept.layers.items()
    }
    told = {key: getattr(config, key) for key in ("erasure", "erasure_form", "erasure_prompts")}
    manifest = replace(concept.manifest, slot=None, basis_id=None, training={**concept.manifest.training, **told})
    return replace(concept, manifest=manifest, layers=layers)


def _foreign_grams(
    base: Base, concept: Concept, config: TrainingConfig, prompts: Sequence[str]
) -> Mapping[str, Tensor]:
    """What the concept's layers see under foreign prompts, layer to ``(in, in)``."""
    generator = seeded("silence", concept.name, config.seed)
    names, class_word = list(concept.tokens), concept.manifest.class_word
    token = min(names, key=len, default="")  # the first one's name; the others' have a number behind
    composed = compose_foreign_prompts(config, token=token, class_word=class_word, prompts=prompts, generator=generator)
    if not names:
        composed = replace(composed, tokened=(), words=())
    vectors = random_vectors(base, composed.words, num_vectors=len(names), generator=generator)
    of_text = text_layers(base, concept.layers) == set(concept.layers)
    latents = None
    if config.prior_pictures > 0 and not of_text:
        latents = make_prior_pictures(base, config, composed.plain).latents
    stand_ins = {name: vectors.new_zeros(vectors.shape[-1]) for name in names}
    with base.with_tokens(stand_ins) as ids, collected_grams(base, list(concept.layers)) as grams:
        token_ids = [ids[name] for name in names]
        inputs = draw_foreign_inputs(base, prompts=composed, vectors=vectors, latents=latents, generator=generator)
        for chosen in torch.arange(len(inputs)).split(config.batch_size):
            inputs.take(chosen).predict(base, token_ids)
    return {layer: gram.value(layer) for layer, gram in grams.items()}
