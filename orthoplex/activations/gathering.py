"""What the layers see under a concept's own prompts: the Gram matrices that data-aware merges need. No pictures.

Where keys and values of cross-attention are all that a concept changes, they all see the same, whatever else is merged,
and the concept's file keeps it (``with_inputs``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.activations.grams import gather_grams
from orthoplex.adapters import LowRank
from orthoplex.concepts import KINDS, TOKENS, Concept
from orthoplex.errors import BaseModelError
from orthoplex.merging import (
    AUTO,
    Algorithm,
    ForeignGram,
    InputGrams,
    Merge,
    check_options,
    merge,
    merge_layers,
    prompts_key,
    store_foreign_gram,
    stored_foreign_gram,
    stored_gram,
)
from orthoplex.merging.choice import heard
from orthoplex.merging.merge import check_pairs, chosen_default
from orthoplex.models import Base, Foldable

NUM_FOREIGN = 64
"""Foreign prompts that are pictured for algorithms that ask for them."""
_LEAST = 1e-3
"""Directions in which inputs are less than this share of the mean over all are not kept.

In a merge of fifteen trained concepts by least squares that changes 4e-4 of what the merge adds under their prompts."""
Gather = Callable[[Foldable | None, Sequence[str], Sequence[str]], Mapping[str, Tensor]]
"""(what is folded in, layers, prompts) -> layer to its Gram matrix."""


class Named(Protocol):
    """What is called by a trigger: a manifest, or a data set."""

    @property
    def kind(self) -> str:
        """One of the kinds of concepts."""
        ...

    @property
    def trigger(self) -> str:
        """The prompt fragment that calls it."""
        ...


def own_prompts(concept: Named) -> tuple[str, ...]:
    """Return prompts of a concept: its kind's templates, and it in plain places, or beside plain things.

    They are the same for all concepts of a kind, and say nothing that a concept might contradict.

    Args:
        concept: Its manifest, or its data set; ``<name>`` stands for all its vectors.
    """
    return KINDS[concept.kind].own_prompts(concept.trigger)


def merge_for(
    base: Base,
    concepts: Sequence[tuple[Concept, float]],
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    gather: Gather | None = None,
) -> Merge:
    """Merge concepts; what an algorithm needs to know of the base's layers, and no file stores, is gathered first.

    ``orthoplex.merging.merge`` gives the same where all of it is stored.

    Args:
        base: The base, with nothing folded in.
        concepts: The concepts with their strengths.
        algorithm: A name in ``ALGORITHMS``, or ``"auto"`` for the one that suits, which has its own options.
        options: The algorithm's options.
        scale: λ of the merge.
        gather: See ``gather_inputs``.

    Raises:
        ConfigurationError: See ``orthoplex.merging.merge``.
        BaseModelError: When a concept does not fit the base.
    """
    concepts = check_pairs(concepts)
    if algorithm == AUTO:
        algorithm, options = chosen_default(concepts, options)
    way = check_options(algorithm=algorithm, options=options, scale=scale)
    inputs = inputs_for(way, base, concepts, scale=scale, gather=gather)
    return merge(concepts, algorithm=algorithm, options=options, scale=scale, inputs=inputs)


def inputs_for(
    way: Algorithm,
    base: Base,
    concepts: Sequence[tuple[Concept, float]],
    *,
    scale: float = 1.0,
    gather: Gather | None = None,
) -> InputGrams | None:
    """Gather what a merging algorithm wants to know of the layers' inputs; None where it wants nothing.

    Where concepts change the text encoder, that is merged first, and the denoiser's layers see what the merged one
    says, as they will in the pictures (so gradient fusion has it in Mix-of-Show).

    Args:
        way: The algorithm.
        base: See ``gather_inputs``.
        concepts: The concepts of the merge with their strengths.
        scale: λ of the merge.
        gather: See ``gather_inputs``.
    """
    if not way.needs_inputs:
        return None
    told = {"with_foreign": way.needs_foreign, "gather": gather}
    ordered = heard(check_pairs(concepts), scale)
    members = [concept for concept, _ in ordered]
    is_text_encoders = base.family.is_text_encoders
    of_text = gather_inputs(base, members, **told, only=is_text_encoders)
    merged = merge_layers(way, ordered, of_text, only=is_text_encoders)
    if not merged:
        return gather_inputs(base, members, **told)
    common = {layer: change.scaled(scale).low_rank for layer, change in merged.items()}
    rest = gather_inputs(base, members, **told, only=lambda layer: not is_text_encoders(layer), common=common)
    grams = {key: {**of_text.concepts[key], **rest.concepts[key]} for key in of_text.concepts}
    return InputGrams(grams, {**of_text.foreign, **rest.foreign})


def gather_inputs(
    base: Base,
    concepts: Sequence[Concept],
    *,
    prompts: Sequence[str] | None = None,
    with_foreign: bool = True,
    gather: Gather | None = None,
    only: Callable[[str], bool] | None = None,
    common: Mapping[str, LowRank] | None = None,
) -> InputGrams:
    """Gather what every layer that a concept changes sees: under each concept's own prompts, and under foreign ones.

    What a concept's file keeps of it is taken from there, unless the text encoder says something else now.

    Args:
        base: The base, with nothing folded in.
        concepts: The concepts of a merge; each is folded in, at strength 1, while its prompts are pictured.
        prompts: Prompts of the base's own words, without any concept; None takes those that come with the base.
        with_foreign: Whether foreign prompts are pictured, too.
        gather: How Gram matrices are made, for callers that remember them; None makes them.
        only: Whether a layer, by its name, is asked for; None asks for all.
        common: Changes of some layers that are folded in instead of each concept's own, and under foreign prompts.

    Raises:
        BaseModelError: When a concept does not fit the base.
    """
    foreign = tuple(dict.fromkeys(default_foreign_prompts(base) if prompts is None else prompts))
    names = sorted({layer for concept in concepts for layer in concept.layers if not only or only(layer)})
    if not names:  # tokens alone
        return InputGrams({concept.content_hash: {} for concept in concepts})
    made: Gather = gather or (lambda change, asked, texts: gather_grams(base, asked, texts, change=change))
    grams = {}
    of_text = set(names) <= base.family.feature_layers().keys()
    for concept in concepts:
        if of_text and not common and concept.inputs is not None:
            grams[concept.content_hash] = dict.fromkeys(names, stored_gram(concept.inputs))
            continue
        folded = replace(concept, layers={**concept.layers, **common}) if common else concept
        grams[concept.content_hash] = made(folded, names, own_prompts(concept.manifest))
    if not with_foreign:
        return InputGrams(grams)
    if of_text and not common and gather is None and prompts is None:
        return InputGrams(grams, dict.fromkeys(names, foreign_gram(base).gram))
    alone = replace(concepts[0], layers=common, tokens={}) if common else None
    return InputGrams(grams, made(alone, names, foreign[:NUM_FOREIGN]))


@torch.no_grad()
def foreign_gram(base: Base) -> ForeignGram:
    """Return what keys and values of cross-attention see under foreign prompts; computed once a base, then stored.

    It is stored from a base in float32 alone; a coarser one is asked again where it reads other numbers.

    Args:
        base: The base, with nothing folded in.

    Raises:
        BaseModelError: When it has to be computed, and something is folded in.
    """
    prompts = tuple(dict.fromkeys(default_foreign_prompts(base)))[:NUM_FOREIGN]
    with base.locked():
        words = base.family.words
        ids = words.ids(prompts)
        key = prompts_key(prompts, ids, words.embeddings(ids))
        stored = stored_foreign_gram(base.identity.hash, key)
        if stored is not None:
            return stored
        if base.recipe is not None:
            raise BaseModelError(
                f"base '{base.identity.name}' has concepts folded in; allowed is asking the base alone, after "
                "restore(), what it answers for foreign prompts"
            )
        layer = next(iter(base.family.layers("cross-attention-kv")))
        found = ForeignGram(gather_grams(base, [layer], prompts)[layer], key)
    if words.dtype == torch.float32:
        store_foreign_gram(base.identity.hash, found)
    return found


@torch.no_grad()
def with_inputs(base: Base, concept: Concept) -> Concept:
    """Return a concept that keeps what its layers see under its own prompts, where that is the same for all of them.

    That is where it changes keys and values of cross-attention alone, and has no token vectors of single layers; any
    other concept keeps nothing.

    Args:
        base: The base, with nothing folded in.
        concept: The concept.

    Raises:
        BaseModelError: When the concept does not fit the base.
    """
    alike = all(TOKENS[item.kind].has_common_inputs for item in concept.tokens.values())
    if not alike or not concept.changes_keys_values_alone:
        return concept if concept.inputs is None else replace(concept, inputs=None)
    layer = next(iter(concept.layers))
    tokens = replace(concept, layers={})  # of keys and values, none changes what they see
    gram = gather_grams(base, [layer], own_prompts(concept.manifest), change=tokens)[layer]
    return replace(concept, inputs=_rows(gram))


def _rows(gram: Tensor) -> Tensor:
    """Float16 ``(k, in)`` whose Gram matrix is the given one, but for directions in which next to nothing is seen."""
    values, vectors = torch.linalg.eigh(gram.double())
    chosen = values > _LEAST * float(gram.diagonal().double().mean())
    rows = (vectors[:, chosen] * values[chosen].sqrt()).T.flip(0)
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()  # else either sign would do
    return (rows * signs).half().contiguous()
