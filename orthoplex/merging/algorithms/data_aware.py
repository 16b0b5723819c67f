"""Least squares and SSR: merges from Gram matrices of the layers' inputs; no pictures, no gradients.

``G_i = E[x xᵀ]`` over the inputs of a layer under concept i's own prompts. Everything is solved in float64.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from orthoplex.concepts import Stack
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms.algorithm import LARGEST, Algorithm, WeightChanges
from orthoplex.merging.systems import Gram, RowGram, dense, solve_damped
from orthoplex.options import option


def own_grams(changes: WeightChanges) -> dict[str, Gram]:
    """Return the Gram matrices of all concepts in the merge by content hash, sorted.

    Raises:
        ConfigurationError: When a concept has none, or one has another width.
    """
    width = changes.shape[1]
    if len(changes.grams) != changes.num_concepts or any(part.concept not in changes.grams for part in changes.parts):
        raise ConfigurationError(
            f"layer {changes.layer}: of {changes.num_concepts} concepts that are merged, {len(changes.grams)} have a "
            "Gram matrix; this algorithm needs one for each"
        )
    for gram in (*changes.grams.values(), *(() if changes.foreign is None else (changes.foreign,))):
        if tuple(gram.shape) != (width, width):
            raise ConfigurationError(
                f"layer {changes.layer}: a Gram matrix has shape {tuple(gram.shape)}; allowed is {(width, width)}"
            )
    return dict(sorted(changes.grams.items()))


def concept_grams(changes: WeightChanges) -> dict[str, Tensor]:
    """Return the Gram matrices of all concepts in the merge, content hash to ``(in, in)`` float64, in sorted order.

    Raises:
        ConfigurationError: When a concept has none, or one has another width.
    """
    return {concept: dense(gram) for concept, gram in own_grams(changes).items()}


@final
@dataclass(frozen=True)
class LeastSquares(Algorithm):
    """The change that on every concept's own inputs is nearest to that concept's own change.

    ``argmin_ΔW Σ_i E‖ΔW x_i − s_i ΔW_i x_i‖² + f · E‖ΔW x_0‖²`` has the closed form

        ΔW = (Σ_i s_i ΔW_i G_i) (Σ_i G_i + f G_0 + εI)⁻¹,

    the optimum that gradient fusion seeks by L-BFGS (with f = 0). The factors stay low-rank: only ``down`` changes.
    Reference: Gu et al., Mix-of-Show, arXiv 2305.18292 (gradient fusion).

    Attributes:
        ridge: ε, as a share of the mean diagonal of the sum of Gram matrices; below 1e-6 counts as 1e-6.
        foreign: f, the weight of prompts without any concept, on which the change should be zero; our addition.
    """

    needs_inputs: ClassVar[bool] = True

    ridge: float = option(1e-4, lowest=0, highest=LARGEST)
    foreign: float = option(0.0, lowest=0, highest=LARGEST)

    @property
    def needs_foreign(self) -> bool:
        """True if the weight ``foreign`` is above 0."""
        return self.foreign > 0

    def merge(self, changes: WeightChanges) -> Stack:
        """Solve for ``down``, which no strength enters; the ups, their owners and strengths are those of the sum.

        Raises:
            ConfigurationError: When a Gram matrix is missing or of another width.
        """
        grams = own_grams(changes)
        if self.foreign > 0 and changes.foreign is None:
            raise ConfigurationError(
                f"layer {changes.layer}: merging option foreign is {self.foreign} and no Gram matrix of foreign "
                "prompts is given; allowed without one is 0"
            )
        foreign = changes.foreign if self.foreign > 0 else None
        nearest = changes.systems.nearest(grams, foreign, self.foreign, self.ridge)
        return changes.stacked().with_downs([nearest.of(part.concept, part.change.down) for part in changes.parts])


@final
@dataclass(frozen=True)
class SubspaceRouter(Algorithm):
    """SSR-Merge: a router between all ``down`` and all ``up`` that sends every concept's signal to its own ``up``.

    With ``z = D x``, all downs one below the other, ``G = Σ_k E_k[z zᵀ]`` over every concept's inputs and
    ``Q_k = E_k[z_k zᵀ]`` over concept k's own:  ``R = Q (G + εI)⁻¹``,  ``ΔW = [s_1 up_1 … s_k up_k] · R · D``.
    It is least squares within the directions that the concepts already read.
    Reference: arXiv 2606.10617. There ε is 1e-4 itself; here it is a share of the mean diagonal of G, so that it
    means the same in every layer.

    Attributes:
        ridge: ε, as a share of the mean diagonal of G; below 1e-6 counts as 1e-6.
    """

    needs_inputs: ClassVar[bool] = True

    ridge: float = option(1e-4, lowest=0, highest=LARGEST)

    def merge(self, changes: WeightChanges) -> Stack:
        """Solve for the router, which no strength enters, and multiply it into ``down``.

        The ups, their owners and strengths are those of the sum.

        Raises:
            ConfigurationError: When a Gram matrix is missing or of another width.
        """
        grams, stacked = own_grams(changes), changes.stacked()
        down = stacked.down.double()
        total = down @ changes.systems.total(grams, None, 0.0) @ down.T
        own = torch.cat([_seen(part.change.down.double(), grams[part.concept], down) for part in changes.parts])
        router = solve_damped(total, own, self.ridge)
        rows = (router @ down).float().contiguous()
        return stacked.with_downs(rows.split([part.change.rank for part in changes.parts]))


def _seen(own: Tensor, gram: Gram, down: Tensor) -> Tensor:
    """``own · G · downᵀ``."""
    if isinstance(gram, RowGram):
        return (own @ gram.factor.T) @ (gram.factor @ down.T)
    return own @ dense(gram) @ down.T
