"""The default merging algorithm of a set of concepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orthoplex.concepts import Concept
from orthoplex.concepts.lora_concept import FOREIGN_METHOD
from orthoplex.options import AUTO

__all__ = ["AUTO", "DefaultAlgorithm", "default_algorithm", "active_concepts"]

_ELSEWHERE = 3.0


@dataclass(frozen=True)
class DefaultAlgorithm:
    """The algorithm and options of a merge that names no algorithm.

    Attributes:
        name: A name in ``ALGORITHMS``.
        options: Its options.
        fallback: A sentence that says why several concepts are merely summed, and the cure; None otherwise.
    """

    name: str
    options: Mapping[str, float]
    fallback: str | None = None


def active_concepts(concepts: Sequence[tuple[Concept, float]], scale: float = 1.0) -> list[tuple[Concept, float]]:
    """Return the concepts whose strength is not 0; none at scale 0."""
    return [(concept, strength) for concept, strength in concepts if strength != 0 and scale != 0]


def default_algorithm(concepts: Sequence[tuple[Concept, float]]) -> DefaultAlgorithm:
    """Return ``least-squares`` for concepts on keys and values of cross-attention, else ``sum``.

    Least squares with a weight on foreign prompts keeps most of fifteen concepts (docs/results.md). It is quick if the
    files store ``inputs``; otherwise the inputs are gathered first, which is quick too, since these layers read only
    text. A single concept needs no merging; ``sum`` returns it unchanged.

    Args:
        concepts: The concepts of the merge with their strengths; those without layers, or at strength 0, do not count.
    """
    changing = [concept for concept, _ in active_concepts(concepts) if concept.layers]
    if len(changing) < 2:
        return DefaultAlgorithm("sum", {})
    wide = [concept for concept in changing if not concept.changes_keys_values_alone]
    if not wide:
        return DefaultAlgorithm("least-squares", {"foreign": _ELSEWHERE})
    return DefaultAlgorithm("sum", {}, _reason(wide, len(changing)))


def _reason(wide: Sequence[Concept], count: int) -> str:
    first, layers = wide[0], wide[0].layers_besides_keys_values
    others = f" (and {len(wide) - 1} more concepts)" if len(wide) > 1 else ""
    return (
        f"{count} concepts are merged by a plain sum, because {first.label}{others} changes {len(layers)} layers "
        f"besides keys and values of cross-attention, such as {layers[0]}; a sum of many keeps less of each. "
        f"{_advice(first)} the algorithm 'least-squares' or 'ssr' with the base, which makes pictures first"
    )


def _advice(concept: Concept) -> str:
    """What to do besides another algorithm: a foreign file cannot be trained again, but silenced where not named."""
    if concept.manifest.method != FOREIGN_METHOD:
        return "Train it with layers = 'cross-attention-kv', the default, or merge by"
    if concept.manifest.training.get("erasure"):
        return "Merge by"
    return "Make it silent where it is not named, with orthoplex adopt, or merge by"
