"""Erasure in closed form: a trained concept becomes silent on inputs that do not hold it; nothing is trained for it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from orthoplex.concepts import Concept
from orthoplex.errors import ConfigurationError
from orthoplex.merging import silence
from orthoplex.models import Base, channels_last, collected_grams, is_text_encoders, see_text_alone, show_text
from orthoplex.training.batches import seeded
from orthoplex.training.config import TrainingConfig
from orthoplex.training.foreign import draw_foreign_inputs, make_prior_pictures, strangers
from orthoplex.training.inputs import gather_inputs
from orthoplex.training.prompts import default_foreign_prompts

_LOG = logging.getLogger(__name__)
_LITTLE = 0.1
"""Share of what a concept adds under its own prompts; where less is left it is told."""


@torch.no_grad()
def silenced(
    base: Base, concept: Concept, config: TrainingConfig, *, foreign_prompts: Sequence[str] | None = None
) -> Concept:
    """Return a concept whose weights say what they said under its own prompts, and next to nothing elsewhere.

    Every weight's change is solved for (``orthoplex.merging.silence``) from what its layer sees under prompts of
    the concept's own (``own_prompts``), with the concept in, and under foreign ones, among them tokens of concepts
    that do not exist. A text encoder is solved for first: the other layers see what the finished one says. No
    training picture is needed, so that it works for any concept file. The concept's directions are no slot's
    afterwards. A token that says no more than its class word leaves next to nothing to keep, which is logged.

    Args:
        base: The base, with nothing folded in.
        concept: The concept; a copy is returned, or, where it changes no weight, itself.
        config: Its ``erasure`` is how much silence counts, ``erasure_prompts`` the number of foreign prompts;
            ``seed`` and ``batch_size`` count too, and, where a layer sees pictures, what prior pictures are made by.
        foreign_prompts: Prompts of the base's own words; None takes those that come with the base, or general ones.

    Raises:
        BaseModelError: When the concept does not fit the base.
        ConfigurationError: When the weight is 0, or the concept was silenced before.
    """
    if config.erasure == 0:
        raise ConfigurationError("erasure is 0, with which nothing becomes silent; allowed are numbers above 0")
    before = concept.manifest.training
    if before.get("erasure_form") == "closed-form" and before.get("erasure"):
        raise ConfigurationError(
            f"concept {concept.name} was silenced before, with weight {before['erasure']}; allowed is once"
        )
    if not concept.layers:
        return concept
    prompts = default_foreign_prompts(base) if foreign_prompts is None else foreign_prompts
    with channels_last(base.pipeline):
        foreign = _foreign_grams(base, concept, config, prompts)
        layers, kept = dict(concept.layers), []
        for of_text in (True, False):
            chosen = [layer for layer in layers if is_text_encoders(layer) == of_text]
            if not chosen:
                continue
            current = replace(concept, layers=layers, inputs=None)  # gathered: what is kept is rounded
            inputs = gather_inputs(base, [current], with_foreign=False, only=lambda layer, its=chosen: layer in its)
            for layer in chosen:
                own, change = inputs.concepts[current.content_hash][layer], layers[layer]
                layers[layer] = silence(change, own, foreign[layer], weight=config.erasure)
                kept.append(layers[layer].energy(own) / max(change.energy(own), 1e-30))
    if sum(kept) < _LITTLE * len(kept):
        _LOG.warning(
            "of what the weights of %s add under its own prompts, erasure %g left %.0f %%; a token that says no more "
            "than its class word cannot be told from it",
            concept.name,
            config.erasure,
            100 * sum(kept) / len(kept),
        )
    told = {"erasure": config.erasure, "erasure_form": "closed-form", "erasure_prompts": config.erasure_prompts}
    if before.get("erasure"):
        told["erasure_while_training"] = before["erasure"]
    manifest = replace(concept.manifest, slot=None, basis_id=None, training={**before, **told})
    return replace(concept, manifest=manifest, layers=layers)


def _foreign_grams(
    base: Base, concept: Concept, config: TrainingConfig, prompts: Sequence[str]
) -> Mapping[str, Tensor]:
    """What the concept's layers see under foreign prompts, layer to ``(in, in)``."""
    generator = seeded("silence", concept.name, config.seed)
    names, class_word = list(concept.tokens), concept.manifest.class_word
    token = min(names, key=len, default="")  # the first one's name; the others' have a number behind
    told = replace(config, num_vectors=max(1, len(names)))
    composed, vectors = strangers(base, told, token=token, class_word=class_word, prompts=prompts, generator=generator)
    if not names:
        composed, vectors = replace(composed, tokened=(), words=()), vectors[:0, :0]
    latents, of_text = None, see_text_alone(base, concept.layers)
    if config.prior_pictures > 0 and not of_text:
        latents = make_prior_pictures(base, config, composed.plain).latents
    stand_ins = {name: vectors.new_zeros(vectors.shape[-1]) for name in names}
    with base.with_tokens(stand_ins) as ids, collected_grams(base, list(concept.layers)) as grams:
        token_ids = [ids[name] for name in names]
        inputs = draw_foreign_inputs(base, prompts=composed, vectors=vectors, latents=latents, generator=generator)
        for chosen in torch.arange(len(inputs)).split(config.batch_size):
            part = inputs.take(chosen)
            if of_text:
                show_text(base, part.features(base, token_ids), grams)
            else:
                part.predict(base, token_ids)
    return {layer: gram.value(layer) for layer, gram in grams.items()}
