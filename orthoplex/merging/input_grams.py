"""Gram matrices of layers' inputs, which data-aware merges need."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from orthoplex.concepts import Concept
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms.algorithm import Algorithm
from orthoplex.merging.algorithms.linear import Sum
from orthoplex.merging.foreign_store import stored_foreign_gram
from orthoplex.merging.systems import Gram, RowGram


@dataclass(frozen=True, eq=False)
class InputGrams:
    """Gram matrices of the inputs of layers.

    Attributes:
        concepts: Content hash of a concept to layer to ``E[x xᵀ]``, ``(in, in)``, under the concept's own prompts.
        foreign: Layer to the same under prompts without any concept; empty if the algorithm needs none.
        summed: Layers that have no matrix, such as convolutions with a window, norms and biases: their changes are
            summed, whatever the algorithm.
    """

    concepts: Mapping[str, Mapping[str, Gram]]
    foreign: Mapping[str, Gram] = field(default_factory=dict)
    summed: frozenset[str] = frozenset()

    def of_layer(self, layer: str) -> dict[str, Gram]:
        """Content hash of every concept to its matrix at one layer."""
        return {concept: grams[layer] for concept, grams in self.concepts.items() if layer in grams}

    def only(self, concepts: Iterable[str]) -> "InputGrams":
        """Return the foreign matrices and those of some concepts, named by content hash; unknown hashes are ignored."""
        return replace(self, concepts={name: self.concepts[name] for name in concepts if name in self.concepts})

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over all names and numbers, those of factors where they are stored."""
        digest, digests = hashlib.sha256(), {}
        for owner, grams in (*sorted(self.concepts.items()), ("", self.foreign)):
            for layer, gram in sorted(grams.items()):
                if id(gram) not in digests:  # layers that see the same share a matrix
                    values = gram.rows if isinstance(gram, RowGram) else gram
                    digests[id(gram)] = hashlib.sha256(values.detach().cpu().float().contiguous().numpy().tobytes())
                form = "factor of " if isinstance(gram, RowGram) else ""  # the same numbers may be either
                name = f"{owner} {layer} {form}{tuple(gram.shape)} {digests[id(gram)].hexdigest()}\n"
                digest.update(name.encode())
        return digest.hexdigest()


def algorithm_of(layer: str, algorithm: Algorithm, inputs: InputGrams | None) -> Algorithm:
    """Return the algorithm that merges a layer: the plain sum for layers without a Gram matrix.

    Args:
        layer: The layer's name.
        algorithm: The algorithm of the merge.
        inputs: Those of the merge.
    """
    return Sum() if inputs is not None and layer in inputs.summed else algorithm


def stored_gram(inputs: Tensor) -> Tensor:
    """Return the Gram matrix ``(in, in)``, float64, of a concept's stored inputs, ``(k, in)``."""
    return RowGram(inputs).matrix


def missing_inputs(concepts: Sequence[Concept], *, with_foreign: bool = False) -> list[str]:
    """Name the matrices that ``stored_inputs`` would lack.

    Args:
        concepts: Concepts of one base.
        with_foreign: True if foreign prompts are needed too.
    """
    missing = [f"the prompts of {concept.label}" for concept in concepts if concept.inputs is None]
    bases = {concept.manifest.base.hash: concept.manifest.base for concept in concepts} if with_foreign else {}
    return missing + [
        f"base '{base.name}' ({base.hash[:12]}) under foreign prompts"
        for base in bases.values()
        if stored_foreign_gram(base.hash) is None
    ]


def stored_inputs(concepts: Sequence[Concept], *, algorithm: str, with_foreign: bool = False) -> InputGrams:
    """Return the stored Gram matrices of concepts and, if needed, the stored foreign matrix of their base.

    Args:
        concepts: Concepts of one base.
        algorithm: The algorithm that needs them, for the error.
        with_foreign: True if foreign prompts are needed too.

    Raises:
        ConfigurationError: When a matrix is not stored; names every missing one, and the remedy.
    """
    layers = sorted({layer for concept in concepts for layer in concept.layers})
    foreign_gram = stored_foreign_gram(concepts[0].manifest.base.hash) if with_foreign and concepts else None
    foreign = {} if foreign_gram is None else dict.fromkeys(layers, foreign_gram.gram)
    if missing := missing_inputs(concepts, with_foreign=with_foreign):
        raise ConfigurationError(
            f"merging algorithm {algorithm!r} needs Gram matrices of the layers' inputs, and there is none of "
            f"{'; '.join(missing)}. merge_for(base, …) gathers them from the base, and stores what the base answers; "
            "algorithm 'sum' needs none"
        )
    grams = {
        concept.content_hash: dict.fromkeys(layers, RowGram(concept.inputs))
        for concept in concepts
        if concept.inputs is not None
    }
    return InputGrams(grams, foreign)
