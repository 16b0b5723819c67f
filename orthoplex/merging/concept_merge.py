"""Merging: many concepts become one change for every weight, without a model."""

import logging
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orthoplex.adapters import slot_partition
from orthoplex.concepts import Concept, Recipe, Stack, Token
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, create_algorithm
from orthoplex.merging.choice import AUTO, active_concepts, default_algorithm
from orthoplex.merging.input_grams import InputGrams, stored_inputs
from orthoplex.merging.layer_merge import merge_layers
from orthoplex.options import checked

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Merge:
    """The changes and tokens of a set of concepts, ready to be folded into their base.

    Attributes:
        layers: Layer name to its one change, float32; a stack knows which concept owns which columns, and its strength.
            ``scale`` is already in ``up``.
        tokens: Name of a token to the token; no strength changes it.
        recipe: The concepts, strengths and algorithm of the merge.
    """

    layers: Mapping[str, Stack]
    tokens: Mapping[str, Token]
    recipe: Recipe

    @property
    def owners(self) -> dict[str, str]:
        """Content hash of every concept that owns columns of some layer, to its name; empty if algorithms mixed all."""
        owning = {owner for stack in self.layers.values() for owner, _ in stack.owners}
        return {item.content_hash: item.name for item in self.recipe.concepts if item.content_hash in owning}


def merge(
    concepts: Sequence[tuple[Concept, float]],
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    inputs: InputGrams | None = None,
) -> Merge:
    """Bring concepts of one base together: ``ΔW = λ · algorithm(s_1 ΔW_1, …, s_k ΔW_k)`` for every weight.

    Concepts are stacked in the order of (name, content hash), so the order given changes no bit of the result. There
    are no cross terms, and a single concept at strength 1 and scale 1 is returned exactly. A warning is logged if
    concepts share a slot, if their slots are of different partitions (in both cases directions may meet), and if the
    default algorithm is a mere sum of several.

    Args:
        concepts: the concepts with their strengths ``s_i``. Strength 0 is the base: neither the concept's weights nor
            its tokens are in the merge, and prompts that name it are read without its name. So is scale 0 for all.
        algorithm: a name in ``ALGORITHMS``, or ``"auto"`` for ``default_algorithm``, which has its own options;
            ``sum`` is exact, ``ΔW = λ Σ_i s_i ΔW_i``.
        options: the algorithm's options; those that are missing take their defaults.
        scale: λ, the strength of the whole.
        inputs: Gram matrices of the layers' inputs; data-aware algorithms need them, others ignore them. None
            takes the matrices that the concepts and their base have stored.

    Raises:
        ConfigurationError: when there is no concept, the algorithm or an option is unknown or not allowed, a strength
            is no finite number, the bases differ, two concepts claim one token, a weight has different shapes in two
            concepts, or Gram matrices are missing.
    """
    ordered = check_pairs(concepts)
    if algorithm == AUTO:
        algorithm, options = chosen_default(ordered, options)
    method = check_options(algorithm=algorithm, options=options, scale=scale)
    _check_bases([concept for concept, _ in ordered])
    present = active_concepts(ordered, scale)
    members = [concept for concept, _ in present]
    tokens = _collect_tokens(members)
    _log_shared_slots(members)
    used = None
    if method.needs_inputs:
        if inputs is None:
            inputs = stored_inputs(members, algorithm=algorithm, with_foreign=method.needs_foreign)
        used = inputs.only(concept.content_hash for concept in members)
    merged = merge_layers(method, present, used)
    layers = {layer: change.scaled(float(scale)) for layer, change in merged.items()}
    return Merge(layers, tokens, _recipe(ordered, algorithm, method, scale, used))


def check_pairs(concepts: Sequence[tuple[Concept, float]]) -> list[tuple[Concept, float]]:
    """Return concepts with their strengths in the order of (name, content hash).

    Raises:
        ConfigurationError: When the list is empty, an item is no pair, a strength is not finite, or a concept is there
            twice.
    """
    if not concepts:
        raise ConfigurationError("a merge of 0 concepts was asked for; at least 1 is allowed")
    hashes: set[str] = set()
    for pair in concepts:
        concept = _checked_concept(pair)
        if concept.content_hash in hashes:
            raise ConfigurationError(
                f"concept {concept.label} is in the merge twice; allowed is once, with the sum of the strengths"
            )
        hashes.add(concept.content_hash)
    return sorted(concepts, key=lambda pair: (pair[0].name, pair[0].content_hash, pair[1]))


def chosen_default(
    concepts: Sequence[tuple[Concept, float]], options: Mapping[str, object] | None
) -> tuple[str, Mapping[str, object]]:
    """Return the algorithm and options of ``"auto"``; log the reason if several concepts are merely summed.

    Raises:
        ConfigurationError: When options are given; ``"auto"`` chooses its own.
    """
    if options:
        raise ConfigurationError(
            f"option {next(iter(options))!r} is given for algorithm {AUTO!r}, which chooses its own; allowed with "
            f"{', '.join(ALGORITHMS)}"
        )
    default = default_algorithm(concepts)
    if default.fallback:
        _LOG.warning(default.fallback)
    return default.name, default.options


def check_options(*, algorithm: str, options: Mapping[str, object] | None = None, scale: float = 1.0) -> Algorithm:
    """Return the algorithm, and refuse options that ``merge`` would refuse for any concepts.

    Raises:
        ConfigurationError: when the algorithm or an option is unknown or not allowed, or the scale is no finite
            number.
    """
    method = create_algorithm(algorithm, options)
    checked("scale", scale, float)
    return method


def _checked_concept(pair: object) -> Concept:
    """Return the concept of a pair whose strength is a finite number."""
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], Concept):
        raise ConfigurationError(
            f"a merge of {type(pair).__name__} was asked for; allowed are (concept, strength) pairs"
        )
    concept, strength = pair
    checked(f"concept {concept.name}: strength", strength, float)
    return concept


def _log_shared_slots(concepts: Sequence[Concept]) -> None:
    owners: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for concept in concepts:
        if concept.manifest.slot is not None:
            owners[slot_partition(concept.manifest.adapter)][concept.manifest.slot].append(concept.name)
    for slots in owners.values():
        for slot, names in sorted(slots.items()):
            if len(names) > 1:
                _LOG.warning(
                    "concepts %s share slot %d, so their changes meet; one concept a slot is meant",
                    ", ".join(names),
                    slot,
                )
    if len(owners) > 1:
        partitions = "; ".join(
            f"{', '.join(name for names in slots.values() for name in names)}: {partition}"
            for partition, slots in sorted(owners.items())
        )
        _LOG.warning("concepts have slots of different partitions, so their changes may meet (%s)", partitions)


def _check_bases(concepts: Sequence[Concept]) -> None:
    first = concepts[0]
    for concept in concepts[1:]:
        ours, theirs = first.manifest.base, concept.manifest.base
        if ours.hash != theirs.hash:
            raise ConfigurationError(
                f"concept {first.name} belongs to base {ours} and concept {concept.name} to {theirs}; one base is "
                "allowed"
            )


def _collect_tokens(concepts: Sequence[Concept]) -> dict[str, Token]:
    owners: dict[str, Concept] = {}
    tokens: dict[str, Token] = {}
    for concept in concepts:
        for token, item in concept.tokens.items():
            if token in owners:
                file, name = shlex.quote(str(concept.path or "FILE")), f"{concept.name[:62]}-2"
                raise ConfigurationError(
                    f"token {token} is claimed by concepts {owners[token].label} and {concept.label}; one is allowed: "
                    f"give one of the two another name: orthoplex rename {file} {name} --output {name}.safetensors"
                )
            owners[token] = concept
            tokens[token] = item
    _check_words(concepts)
    return tokens


def _check_words(concepts: Sequence[Concept]) -> None:
    """Refuse concepts that the same rare word calls."""
    owners: dict[str, Concept] = {}
    for concept in concepts:
        word = concept.manifest.rare_word
        other = owners.setdefault(word, concept)
        if word and other is not concept:
            raise ConfigurationError(
                f"the rare word '{word}' calls concepts {other.label} and {concept.label}; one is allowed: train one "
                "of the two under another name"
            )


def _recipe(
    ordered: Sequence[tuple[Concept, float]], algorithm: str, method: Algorithm, scale: float, inputs: InputGrams | None
) -> Recipe:
    return Recipe(
        base=ordered[0][0].manifest.base,
        concepts=tuple(replace(concept.recipe.concepts[0], strength=float(strength)) for concept, strength in ordered),
        algorithm=algorithm,
        options=method.to_json(),
        inputs=None if inputs is None else inputs.content_hash,
        scale=float(scale),
    )
