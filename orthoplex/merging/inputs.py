"""Gram matrices of layers' inputs, which data-aware merges need."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from orthoplex.concepts import Concept
from orthoplex.errors import ConfigurationError
from orthoplex.merging.foreign import stored_foreign_gram


@dataclass(frozen=True, eq=False)
class InputGrams:
    """Gram matrices of the inputs of layers.

    Attributes:
        concepts: Content hash of a concept to layer to ``E[x xᵀ]``, ``(in, in)``, under the concept's own prompts.
        foreign: Layer to the same under prompts without any concept; empty where they are not needed.
    """

    concepts: Mapping[str, Mapping[str, Tensor]]
    foreign: Mapping[str, Tensor] = field(default_factory=dict)

    def of_layer(self, layer: str) -> dict[str, Tensor]:
        """Content hash of every concept to its matrix at one layer."""
        return {concept: grams[layer] for concept, grams in self.concepts.items() if layer in grams}

    def only(self, concepts: Iterable[str]) -> "InputGrams":
        """The matrices of some concepts, by content hash, and the foreign ones."""
        return InputGrams({name: self.concepts[name] for name in concepts if name in self.concepts}, self.foreign)

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over all names and numbers."""
        digest, known = hashlib.sha256(), {}
        for owner, grams in (*sorted(self.concepts.items()), ("", self.foreign)):
            for layer, gram in sorted(grams.items()):
                if id(gram) not in known:  # layers that see the same share a matrix
                    known[id(gram)] = hashlib.sha256(gram.detach().cpu().float().contiguous().numpy().tobytes())
                digest.update(f"{owner} {layer} {tuple(gram.shape)} {known[id(gram)].hexdigest()}\n".encode())
        return digest.hexdigest()


def stored_gram(inputs: Tensor) -> Tensor:
    """The Gram matrix ``(in, in)``, float64, of what a concept stores of its layers' inputs, ``(k, in)``."""
    rows = inputs.double()
    return rows.T @ rows


def missing_inputs(concepts: Sequence[Concept], *, with_foreign: bool = False) -> list[str]:
    """Name what ``stored_inputs`` would lack.

    Args:
        concepts: Concepts of one base.
        with_foreign: Whether foreign prompts are asked for, too.
    """
    missing = [f"the prompts of {concept.label}" for concept in concepts if concept.inputs is None]
    bases = {concept.manifest.base.hash: concept.manifest.base for concept in concepts} if with_foreign else {}
    return missing + [
        f"base '{base.name}' ({base.hash[:12]}) under foreign prompts"
        for base in bases.values()
        if stored_foreign_gram(base.hash) is None
    ]


def stored_inputs(concepts: Sequence[Concept], *, algorithm: str, with_foreign: bool = False) -> InputGrams:
    """What concepts store of what their layers see, and, where asked for, what is stored of their base.

    Args:
        concepts: Concepts of one base.
        algorithm: What needs it, for the error.
        with_foreign: Whether foreign prompts are asked for, too.

    Raises:
        ConfigurationError: When something is not stored; names all of it, and what to do.
    """
    layers = sorted({layer for concept in concepts for layer in concept.layers})
    stored = stored_foreign_gram(concepts[0].manifest.base.hash) if with_foreign and concepts else None
    foreign = {} if stored is None else dict.fromkeys(layers, stored.gram)
    if missing := missing_inputs(concepts, with_foreign=with_foreign):
        raise ConfigurationError(
            f"merging algorithm {algorithm!r} needs Gram matrices of the layers' inputs, and there is none of "
            f"{'; '.join(missing)}. merge_for(base, …) gathers them from the base, and stores what the base answers; "
            "algorithm 'sum' needs none"
        )
    grams = {
        concept.content_hash: dict.fromkeys(layers, stored_gram(concept.inputs))
        for concept in concepts
        if concept.inputs is not None
    }
    return InputGrams(grams, foreign)
