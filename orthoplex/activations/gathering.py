"""Gram matrices under the prompts of every concept of a merge, and under foreign ones. No pictures are kept.

Where keys and values of cross-attention are all that a concept changes, they all see the same, whatever else is merged,
and the concept's file stores it (``with_inputs``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.activations.grams import gather_grams, split_layers
from orthoplex.activations.own_prompts import own_prompts
from orthoplex.activations.stored_inputs import NUM_FOREIGN, foreign_gram
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept
from orthoplex.merging import InputGrams, RowGram
from orthoplex.models import Base, Foldable

Gather = Callable[[Foldable | None, Sequence[str], Sequence[str]], Mapping[str, Tensor]]
"""(what is folded in, layers, prompts) -> layer to its Gram matrix."""


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
    """Gather the Gram matrices of all layers that concepts change, under each concept's own prompts and foreign ones.

    A matrix that a concept stores is not gathered again, unless a changed text encoder is folded in. Convolutions
    with a window, norms and biases have none: merges sum their changes.

    Args:
        base: The base, with nothing folded in.
        concepts: The concepts of a merge; each is folded in, at strength 1, while its prompts are pictured.
        prompts: Prompts of the base's own words, without any concept; None takes those that come with the base.
        with_foreign: True gathers under foreign prompts, too.
        gather: How Gram matrices are made, for callers that remember them; None makes them.
        only: Predicate of the names of layers to gather; None gathers all.
        common: Changes of some layers that are folded in instead of each concept's own, and under foreign prompts.

    Raises:
        BaseModelError: When a concept does not fit the base.
    """
    foreign = tuple(dict.fromkeys(default_foreign_prompts(base) if prompts is None else prompts))
    changed = {layer for concept in concepts for layer in concept.layers if not only or only(layer)}
    names, others = split_layers(base, sorted(changed)) if changed else ([], ())
    summed = frozenset(others)
    if not names:  # tokens alone, or nothing whose inputs are observed
        return InputGrams({concept.content_hash: {} for concept in concepts}, summed=summed)
    made: Gather = gather or (lambda change, asked, texts: gather_grams(base, asked, texts, change=change))
    grams = {}
    of_text = set(names) <= base.family.feature_layers().keys()
    for concept in concepts:
        if of_text and not common and concept.inputs is not None:
            grams[concept.content_hash] = dict.fromkeys(names, RowGram(concept.inputs))
            continue
        folded = replace(concept, layers={**concept.layers, **common}) if common else concept
        grams[concept.content_hash] = made(folded, names, own_prompts(base, concept.manifest))
    if not with_foreign:
        return InputGrams(grams, summed=summed)
    if of_text and not common and gather is None and prompts is None:
        return InputGrams(grams, dict.fromkeys(names, foreign_gram(base).gram), summed)
    alone = replace(concepts[0], layers=common, tokens={}) if common else None
    return InputGrams(grams, made(alone, names, foreign[:NUM_FOREIGN]), summed)
