"""Erasure in closed form: a trained concept becomes silent on inputs that do not hold it; nothing is trained for it.

Or its directions do while it is trained, and the weights go on learning in these.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from orthoplex.adapters import Adapter, LowRank
from orthoplex.concepts import Concept
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConfigurationError
from orthoplex.merging import silence
from orthoplex.models import Base, collected_grams, show_text
from orthoplex.subspaces import seeded
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.foreign import draw_foreign_inputs, make_prior_pictures, strangers
from orthoplex.training.inputs import gather_inputs, own_prompts
from orthoplex.training.prompts import default_foreign_prompts
from orthoplex.training.run import Run

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
    _check_silence(concept, config)
    if not concept.layers:
        return concept
    prompts = default_foreign_prompts(base) if foreign_prompts is None else foreign_prompts
    stand_ins = {token: Vector.of(torch.zeros(base.family.words.width)) for token in concept.tokens}
    with base.locked():
        base.family.channels_last()
        with base.with_tokens(stand_ins) as tokens:
            told = {"name": concept.name, "class_word": concept.manifest.class_word, "tokens": tokens}
            foreign = foreign_grams(base, config, concept.layers, prompts, **told)
        layers, kept = dict(concept.layers), []
        for of_text in (True, False):
            chosen = [layer for layer in layers if base.family.is_text_encoders(layer) == of_text]
            if not chosen:
                continue
            current = replace(concept, layers=layers, inputs=None)  # gathered: what is kept is rounded
            inputs = gather_inputs(base, [current], with_foreign=False, only=lambda layer, its=chosen: layer in its)
            for layer in chosen:
                own, change = inputs.concepts[current.content_hash][layer], layers[layer]
                layers[layer] = silence(change, own, foreign[layer], weight=config.erasure)
                kept.append(layers[layer].energy(own) / max(change.energy(own), 1e-30))
    _tell_what_is_left(concept.name, config, kept)
    before = concept.manifest.training
    done = {"erasure": config.erasure, "erasure_form": "closed-form", "erasure_prompts": config.erasure_prompts}
    if before.get("erasure"):
        done["erasure_while_training"] = before["erasure"]
    manifest = replace(concept.manifest, slot=None, basis_id=None, training={**before, **done})
    return replace(concept, manifest=manifest, layers=layers)


def _tell_what_is_left(name: str, config: TrainingConfig, kept: Sequence[float]) -> None:
    """Log where next to nothing is left of what layers heard, or added, under a concept's own prompts."""
    if kept and sum(kept) < _LITTLE * len(kept):
        _LOG.warning(
            "of what the weights of %s add under its own prompts, erasure %g left %.0f %%; a token that says no more "
            "than its class word cannot be told from it",
            name,
            config.erasure,
            100 * sum(kept) / len(kept),
        )


def _check_silence(concept: Concept, config: TrainingConfig) -> None:
    if config.erasure == 0:
        raise ConfigurationError("erasure is 0, with which nothing becomes silent; allowed are numbers above 0")
    before = concept.manifest.training
    if before.get("erasure_form") == "closed-form" and before.get("erasure"):
        raise ConfigurationError(
            f"concept {concept.name} was silenced before, with weight {before['erasure']}; allowed is once"
        )


@torch.no_grad()
def foreign_grams(
    base: Base,
    config: TrainingConfig,
    layers: Collection[str],
    prompts: Sequence[str],
    *,
    name: str,
    class_word: str,
    tokens: Sequence[str],
) -> dict[str, Tensor]:
    """Return what layers see under foreign prompts, layer to ``(in, in)``; concepts that do not exist are among them.

    Args:
        base: The base, with nothing folded in or attached; its tokenizer knows the concept's tokens.
        config: For the number of prompts, the seed and the batch size.
        layers: Names of the layers.
        prompts: Prompts of the base's own words.
        name: The concept's name.
        class_word: The concept's class word.
        tokens: The names of the concept's tokens.
    """
    generator = seeded("silence", name, config.seed)
    token = min(tokens, key=len, default="")  # the first one's name; the others' have a number behind
    told = replace(config, num_vectors=max(1, len(tokens)))
    composed, vectors = strangers(base, told, token=token, class_word=class_word, prompts=prompts, generator=generator)
    if not tokens:
        composed, vectors = replace(composed, tokened=(), words=()), vectors[:0, :0]
    latents, of_text = None, base.family.see_text_alone(layers)
    if config.prior_pictures > 0 and not of_text:
        latents = make_prior_pictures(base, config, composed.plain).latents
    inputs = draw_foreign_inputs(base, prompts=composed, vectors=vectors, latents=latents, generator=generator)
    with collected_grams(base, list(layers)) as grams:
        for chosen in torch.arange(len(inputs)).split(config.batch_size):
            part = inputs.take(chosen)
            if of_text:
                show_text(base, part.conditioning(base, tokens), grams)
            else:
                part.predict(base, tokens)
    return {layer: gram.value(layer) for layer, gram in grams.items()}


@torch.no_grad()
def silent_directions(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    adapters: Mapping[str, Adapter],
    vectors: Tensor,
    tokens: Sequence[str],
    foreign_prompts: Sequence[str],
) -> dict[str, tuple[Tensor, float]]:
    """Return what every adapter's frozen directions become when they are silent: rows ``(r, in)``, and a length.

    The rows are ``down G (G + w G₀ + εI)⁻¹`` times the length, with which they are heard about as loudly under the
    concept's own prompts as before, so that one learning rate suits both. It is a power of two: what ``up`` is
    divided by on its account comes back bit for bit.

    Args:
        base: The base, with no adapter attached; its tokenizer knows the tokens.
        dataset: For the concept's own prompts.
        run: For the weight of erasure, and where what tokens learned is put.
        adapters: Layer name to adapter; layers see the text alone.
        vectors: What the tokens learned; it does not change any more.
        tokens: The names of the k tokens.
        foreign_prompts: Prompts of the base's own words.
    """
    config, layers = run.config, list(adapters)
    told = {"name": run.name, "class_word": dataset.class_word, "tokens": tokens}
    foreign = foreign_grams(base, config, layers, foreign_prompts, **told)
    with run.put_in(base, vectors), collected_grams(base, layers) as own:
        for ids in base.family.words.ids(own_prompts(dataset)).split(config.batch_size):
            show_text(base, base.family.condition(ids).to(base.dtype), own)
    turned, kept = {}, []
    for layer, adapter in adapters.items():
        gram, loud = own[layer].value(layer), LowRank(adapter.up.detach().cpu(), adapter.down.cpu())
        rows = silence(loud, gram, foreign[layer], weight=config.erasure).down
        before, after = (float(((down @ gram) * down).sum()) for down in (loud.down, rows))
        length = 2.0 ** round(math.log2(before / after) / 2) if before > 0 and after > 0 else 1.0
        turned[layer] = (rows * length, length)
        kept.append(after / max(before, 1e-30))
    _tell_what_is_left(run.name, config, kept)
    return turned
