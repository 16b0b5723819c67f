"""Erasure in closed form: the solved weights add next to nothing to foreign inputs; nothing is trained for it.

It applies to a finished concept, or to the frozen directions of a concept in training, whose weights learn on.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.activations.foreign_inputs import draw_foreign_inputs
from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.activations.grams import add_text, collected_grams, gather_grams, split_layers
from orthoplex.activations.own_prompts import own_prompts
from orthoplex.activations.prior_pictures import make_prior_pictures
from orthoplex.activations.random_concepts import foreign_material
from orthoplex.activations.stored_inputs import with_inputs
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConfigurationError
from orthoplex.merging import closed_form_erasure
from orthoplex.models import Base
from orthoplex.subspaces import seeded

_LOG = logging.getLogger(__name__)
_LITTLE = 0.1
"""Share of what a concept adds under its own prompts; a smaller rest is logged."""


@torch.no_grad()
def with_erasure(
    base: Base, concept: Concept, options: ErasureOptions, *, foreign_prompts: Sequence[str] | None = None
) -> Concept:
    """Return a concept whose weights add what they added under its own prompts, and next to nothing elsewhere.

    Every weight's change is solved for (``orthoplex.merging.change_erasure``) from what its layer sees under prompts of
    the concept's own, with the concept in, and under foreign ones, among them tokens of concepts that do not exist. A
    text encoder is solved for first: the other layers see the features of the finished one. No training picture is
    needed, so that it works for any concept file. The concept's directions are no slot's afterwards. The concept stores
    what its layers see where that is the same for all of them (``with_inputs``); nothing is gathered again for it. A
    token that says no more than its class word leaves next to nothing to keep, which is logged.

    Args:
        base: The base, with nothing folded in.
        concept: The concept; a copy is returned, or, where it changes no weight, itself.
        options: Weight, foreign prompts, and, where a layer sees pictures, prior pictures.
        foreign_prompts: Prompts of the base's own words; None takes those that come with the base, or general ones.

    Raises:
        BaseModelError: When the concept does not fit the base.
        ConfigurationError: When the weight is 0, erasure in closed form was done before, or no changed layer can be
            solved for.
    """
    if not concept.layers:
        _check_erasure(concept, options)
        return concept
    erased = erased_layers(base, concept, options, foreign_prompts=foreign_prompts)
    if erased.unsolved:
        _LOG.warning(
            "%s: erasure cannot solve for %d of %d layers, which stay as they are: convolutions with a window, norms "
            "and biases, such as %s",
            concept.label,
            len(erased.unsolved),
            len(concept.layers),
            erased.unsolved[0],
        )
    return with_inputs(base, after_erasure(concept, erased.layers, options), own=erased.own)


@final
@dataclass(frozen=True, eq=False)
class ErasedLayers:
    """The layers of a concept after erasure, and what they see.

    Attributes:
        layers: Layer to its change, all of the concept's.
        own: Layer to the Gram matrix of its inputs under the concept's own prompts, ``(in, in)``.
        foreign: The same under foreign prompts.
        unsolved: The layers that stay as they were: their inputs have no Gram matrix.
    """

    layers: Mapping[str, LowRank]
    own: Mapping[str, Tensor]
    foreign: Mapping[str, Tensor]
    unsolved: tuple[str, ...]


Solve = Callable[[str, LowRank, Tensor, Tensor], LowRank]
"""(layer, its change, G of own inputs, G of foreign inputs) -> the change after erasure."""


@torch.no_grad()
def erased_layers(
    base: Base,
    concept: Concept,
    options: ErasureOptions,
    *,
    foreign_prompts: Sequence[str] | None = None,
    solve: Solve | None = None,
) -> ErasedLayers:
    """Solve for every layer of a concept; see ``with_erasure``.

    Args:
        base: See ``with_erasure``.
        concept: See ``with_erasure``; it changes a layer.
        options: See ``with_erasure``.
        foreign_prompts: See ``with_erasure``.
        solve: How one layer is solved for; None takes ``closed_form_erasure``.

    Raises:
        BaseModelError: See ``with_erasure``.
        ConfigurationError: See ``with_erasure``.
    """
    _check_erasure(concept, options)
    solved = solve or (lambda _, change, own, foreign: closed_form_erasure(change, own, foreign, weight=options.weight))
    manifest = concept.manifest
    prompts = default_foreign_prompts(base) if foreign_prompts is None else foreign_prompts
    words = base.family.words
    stand_ins = {token: Vector(words.split(torch.zeros(words.width))) for token in concept.tokens}
    solvable, unsolved = split_layers(base, concept.layers)
    if not solvable:
        raise ConfigurationError(
            f"concept {concept.label} changes only layers that erasure cannot solve for (convolutions with a window, "
            f"norms and biases), such as {unsolved[0]}, so that nothing would become silent; use it as it is, in "
            "orthoplex generate or orthoplex merge"
        )
    layers, own, energy_shares = dict(concept.layers), {}, []
    with base.locked():
        base.family.channels_last()
        with base.with_tokens(stand_ins) as tokens:
            foreign = foreign_grams(
                base, options, solvable, prompts, name=concept.name, class_word=manifest.class_word, tokens=tokens
            )
        for of_text in (True, False):
            chosen = sorted(layer for layer in solvable if base.family.is_text_encoders(layer) == of_text)
            if not chosen:
                continue
            current = replace(concept, layers=dict(layers))
            own |= gather_grams(base, chosen, own_prompts(base, manifest), change=current)
            for layer in chosen:
                before = layers[layer]
                layers[layer] = solved(layer, before, own[layer], foreign[layer])
                energy_shares.append(layers[layer].energy(own[layer]) / max(before.energy(own[layer]), 1e-30))
    _log_little(concept.name, options, energy_shares)
    return ErasedLayers(layers, own, foreign, unsolved)


def after_erasure(concept: Concept, layers: Mapping[str, LowRank], options: ErasureOptions) -> Concept:
    """Return a concept with the layers that erasure solved for, and a manifest that says so; no slot is its own.

    Args:
        concept: The concept before.
        layers: Its layers after erasure.
        options: Those of the erasure.
    """
    manifest = concept.manifest
    training = {
        **manifest.training,
        "erasure": options.weight,
        "erasure_form": "closed-form",
        "erasure_prompts": options.num_prompts,
    }
    if manifest.training.get("erasure"):
        training["erasure_while_training"] = manifest.training["erasure"]
    return replace(
        concept, manifest=replace(manifest, slot=None, basis_id=None, training=training), layers=dict(layers)
    )


def _log_little(name: str, options: ErasureOptions, energy_shares: Sequence[float]) -> None:
    """Log a small rest of what layers added, or directions received, under a concept's own prompts."""
    if energy_shares and sum(energy_shares) < _LITTLE * len(energy_shares):
        _LOG.warning(
            "of what the weights of %s add under its own prompts, erasure %g left %.0f %%; a token that says no more "
            "than its class word cannot be told from it",
            name,
            options.weight,
            100 * sum(energy_shares) / len(energy_shares),
        )


def _check_erasure(concept: Concept, options: ErasureOptions) -> None:
    if options.weight == 0:
        raise ConfigurationError("erasure is 0, with which nothing becomes silent; allowed are numbers above 0")
    if concept.layers and not concept.manifest.trigger.strip():
        raise ConfigurationError(
            f"concept {concept.label} has no trigger, so that it acts on every prompt; allowed is erasure of a concept "
            "with one"
        )
    before = concept.manifest.training
    if before.get("erasure_form") == "closed-form" and before.get("erasure"):
        raise ConfigurationError(
            f"concept {concept.name} has erasure already, with weight {before['erasure']}; allowed is once"
        )


@torch.no_grad()
def foreign_grams(
    base: Base,
    options: ErasureOptions,
    layers: Collection[str],
    prompts: Sequence[str],
    *,
    name: str,
    class_word: str,
    tokens: Sequence[str],
) -> dict[str, Tensor]:
    """Return Gram matrices under foreign prompts, layer to ``(in, in)``; some prompts name concepts that do not exist.

    Args:
        base: The base, with nothing folded in or attached; its tokenizer knows the concept's tokens.
        options: Foreign prompts, seed and prior pictures.
        layers: Names of the layers.
        prompts: Prompts of the base's own words.
        name: The concept's name.
        class_word: The concept's class word.
        tokens: The names of the concept's tokens.
    """
    generator = seeded("silence", name, options.seed)
    composed, vectors = foreign_material(
        base,
        options,
        token=min(tokens, key=len, default=""),  # the first one's name; the others' have a number behind
        class_word=class_word,
        prompts=prompts,
        num_vectors=len(tokens),
        generator=generator,
    )
    latents, of_text = None, base.family.see_text_alone(layers)
    if options.prior_pictures > 0 and not of_text:
        latents = make_prior_pictures(base, options, composed.plain).latents
    inputs = draw_foreign_inputs(base, prompts=composed, vectors=vectors, latents=latents, generator=generator)
    with collected_grams(base, list(layers)) as grams:
        for chosen in torch.arange(len(inputs)).split(options.batch_size):
            part = inputs.take(chosen)
            if of_text:
                add_text(base, part.conditioning(base, tokens), grams)
            else:
                part.predict(base, tokens)
    return {layer: gram.value(layer) for layer, gram in grams.items()}


def erasure_directions(
    name: str,
    changes: Mapping[str, LowRank],
    own: Mapping[str, Tensor],
    foreign: Mapping[str, Tensor],
    options: ErasureOptions,
) -> dict[str, tuple[Tensor, float]]:
    """Return every layer's directions after erasure: rows ``(r, in)``, and a length.

    The rows are ``down G (G + w G₀ + εI)⁻¹`` times the length, with which inputs under the concept's own prompts have
    about the energy that they had before, so that one learning rate suits both. It is a power of two:
    dividing ``up`` by it is undone bit for bit.

    Args:
        name: The concept's name, for the log.
        changes: Layer to its change so far, on the CPU.
        own: G of the same layers, ``(in, in)``.
        foreign: G₀ of the same layers, ``(in, in)``.
        options: The weight w.
    """
    directions, energy_shares = {}, []
    for layer, change in changes.items():
        rows = closed_form_erasure(change, own[layer], foreign[layer], weight=options.weight).down
        before, after = (float(((down @ own[layer]) * down).sum()) for down in (change.down, rows))
        length = 2.0 ** round(math.log2(before / after) / 2) if before > 0 and after > 0 else 1.0
        directions[layer] = (rows * length, length)
        energy_shares.append(after / max(before, 1e-30))
    _log_little(name, options, energy_shares)
    return directions
