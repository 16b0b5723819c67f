"""Which algorithm merges a set of concepts, for those who ask for none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orthoplex.concepts import Concept
from orthoplex.options import AUTO

__all__ = ["AUTO", "DefaultAlgorithm", "default_algorithm", "present"]

_ELSEWHERE = 3.0


@dataclass(frozen=True)
class DefaultAlgorithm:
    """What a merge is made by when nobody asks for an algorithm.

    Attributes:
        name: A name in ``ALGORITHMS``.
        options: Its options.
        fallback: Why several concepts are merely summed, and the cure, as a sentence; None where they are not.
    """

    name: str
    options: Mapping[str, float]
    fallback: str | None = None


def present(concepts: Sequence[tuple[Concept, float]], scale: float = 1.0) -> list[tuple[Concept, float]]:
    """Return the concepts whose strength is not 0; at scale 0 there are none."""
    return [(concept, strength) for concept, strength in concepts if strength != 0 and scale != 0]


def default_algorithm(concepts: Sequence[tuple[Concept, float]]) -> DefaultAlgorithm:
    """Return ``least-squares`` for concepts on keys and values of cross-attention, else ``sum``.

    Least squares with some silence elsewhere keeps most of fifteen concepts (docs/results.md), and takes a moment where
    files store ``inputs``; what others' layers see, which is the text alone, is soon gathered. A single concept needs
    no merging: ``sum`` returns it unchanged.

    Args:
        concepts: The concepts of the merge with their strengths; tokens alone, and strength 0, have no say.
    """
    changing = [concept for concept, _ in present(concepts) if concept.layers]
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
        f"besides keys and values of cross-attention, such as {layers[0]}; a sum of many keeps less of each. Train it "
        "with layers = 'cross-attention-kv', the default, or merge by the algorithm 'least-squares' or 'ssr', for "
        "which the base makes pictures first"
    )
