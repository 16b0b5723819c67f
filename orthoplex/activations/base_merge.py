"""Merges with a base at hand, which gathers the Gram matrices that no file stores."""

from collections.abc import Mapping, Sequence
from functools import partial

from orthoplex.activations.gathering import Gather, gather_inputs
from orthoplex.activations.stored_inputs import has_foreign_gram
from orthoplex.concepts import Concept
from orthoplex.merging import (
    AUTO,
    Algorithm,
    InputGrams,
    Merge,
    check_options,
    default_algorithm,
    merge,
    merge_layers,
)
from orthoplex.merging.choice import active_concepts
from orthoplex.merging.concept_merge import check_pairs, chosen_default
from orthoplex.models import Base, Blend
from orthoplex.models.weights import check_base


def merge_for(
    base: Base,
    concepts: Sequence[tuple[Concept, float]],
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    gather: Gather | None = None,
) -> Merge:
    """Merge concepts; Gram matrices that the algorithm needs, and no file stores, are gathered from the base first.

    ``orthoplex.merging.merge`` gives the same where all of them are stored.

    Args:
        base: The base, with nothing folded in.
        concepts: The concepts with their strengths.
        algorithm: A name in ``ALGORITHMS``, or ``"auto"`` for the one that suits, which has its own options.
        options: The algorithm's options.
        scale: λ of the merge.
        gather: See ``gather_inputs``.

    Raises:
        ConfigurationError: See ``orthoplex.merging.merge``.
        BaseModelError: When a concept belongs to another base, or does not fit this one.
    """
    concepts = check_pairs(concepts)
    for concept, _ in concepts:
        check_base(concept.recipe, base.identity)
    if algorithm == AUTO:
        algorithm, options = chosen_default(concepts, options)
    chosen = check_options(algorithm=algorithm, options=options, scale=scale)
    inputs = inputs_for(chosen, base, concepts, scale=scale, gather=gather)
    return merge(concepts, algorithm=algorithm, options=options, scale=scale, inputs=inputs)


def blend_for(
    base: Base,
    concepts: Sequence[tuple[Concept, float] | Concept] = (),
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    unmerged: bool | None = None,
) -> Blend:
    """Put a live set of concepts into a base, as ``Base.blend`` does, for algorithms that ask the base, too.

    Where all Gram matrices are stored, a change of the set takes as long as with ``Base.blend``. Where some are not,
    everything is taken out for a change, and the base makes pictures of the concepts' prompts first.

    Args:
        base: The base, with nothing folded in.
        concepts: See ``Base.blend``.
        algorithm: See ``merge_for``.
        options: See ``merge_for``.
        scale: See ``merge_for``.
        unmerged: See ``Base.fold``.

    Raises:
        ConfigurationError: See ``Base.blend``.
        BaseModelError: See ``Base.blend``.
    """
    if algorithm != AUTO:
        check_options(algorithm=algorithm, options=options, scale=scale)
    merger = partial(merge_for, base, algorithm=algorithm, options=options, scale=scale)

    def asks_base(pairs: Sequence[tuple[Concept, float]]) -> bool:
        present = [(concept, strength) for concept, strength in pairs if strength]
        if not present:
            return False
        default = default_algorithm(present) if algorithm == AUTO else None
        name, chosen = (algorithm, options) if default is None else (default.name, default.options)
        method = check_options(algorithm=name, options=chosen)
        members = [concept for concept, _ in present]
        are_stored = all(concept.inputs is not None and concept.changes_keys_values_alone for concept in members)
        return method.needs_inputs and not (are_stored and (not method.needs_foreign or has_foreign_gram(base)))

    return base.blend_by(concepts, merger, unmerged=unmerged, needs_plain_base=asks_base)


def inputs_for(
    algorithm: Algorithm,
    base: Base,
    concepts: Sequence[tuple[Concept, float]],
    *,
    scale: float = 1.0,
    gather: Gather | None = None,
) -> InputGrams | None:
    """Gather the Gram matrices of layers' inputs that a merging algorithm needs; None where it needs none.

    Where concepts change the text encoder, that is merged first, and the denoiser's layers see what the merged one
    says, as they will in the pictures (so gradient fusion has it in Mix-of-Show).

    Args:
        algorithm: The algorithm.
        base: See ``gather_inputs``.
        concepts: The concepts of the merge with their strengths.
        scale: λ of the merge.
        gather: See ``gather_inputs``.
    """
    if not algorithm.needs_inputs:
        return None
    with_foreign = algorithm.needs_foreign
    ordered = active_concepts(check_pairs(concepts), scale)
    members = [concept for concept, _ in ordered]
    is_text_encoders = base.family.is_text_encoders
    of_text = gather_inputs(base, members, with_foreign=with_foreign, gather=gather, only=is_text_encoders)
    merged = merge_layers(algorithm, ordered, of_text, only=is_text_encoders)
    if not merged:
        return gather_inputs(base, members, with_foreign=with_foreign, gather=gather)
    rest = gather_inputs(
        base,
        members,
        with_foreign=with_foreign,
        gather=gather,
        only=lambda layer: not is_text_encoders(layer),
        common={layer: change.scaled(scale).low_rank for layer, change in merged.items()},
    )
    grams = {key: {**of_text.concepts[key], **rest.concepts[key]} for key in of_text.concepts}
    return InputGrams(grams, {**of_text.foreign, **rest.foreign}, of_text.summed | rest.summed)
