"""Custom Diffusion's merge: exact on what only a concept's own prompts hold, and as little as can be on all else."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms.algorithm import LARGEST, Algorithm, WeightChanges
from orthoplex.merging.algorithms.data_aware import concept_grams
from orthoplex.merging.systems import SMALLEST_RIDGE, damped, dense
from orthoplex.options import option


@final
@dataclass(frozen=True)
class CustomDiffusion(Algorithm):
    """The least change on other words that gives every concept's own words what that concept alone would give them.

    The paper's ``argmin_W ‖W C_reg − W₀ C_reg‖_F`` under ``W C = V``, with the text features ``C`` of all concepts'
    target words, what each concept's own weights give for them ``V``, and features of other captions ``C_reg``, is

        W = W₀ + (V − W₀ C) (Cᵀ A⁻¹ C)⁻¹ Cᵀ A⁻¹,    A = C_reg C_regᵀ.

    ``V − W₀ C`` holds ``s_i ΔW_i C_i`` for each concept, and only the span of each ``C_i`` counts; both are known here.
    A is the Gram matrix ``G_0`` of foreign prompts. The words of concept i are the directions that its own prompts hold
    more than ``threshold`` times as strongly as foreign prompts do: with ``A^(-1/2) G_i A^(-1/2) = Q Λ Qᵀ`` and
    ``U_i`` the columns of Q with the largest ``λ``, ``C_i = A^(1/2) U_i``, and with all ``U_i`` side by side

        ΔW = [s_1 ΔW_1 C_1 … s_k ΔW_k C_k] (Uᵀ U)⁻¹ Uᵀ A^(-1/2).

    This *is* the paper's solution where ``G_i = a A + C_i C_iᵀ`` with a below the threshold, for example where a
    concept's prompts are its target words alone (a = 0). That directions are chosen by threshold, and not as the
    features of listed words, is ours. Damping keeps A and ``Uᵀ U`` regular: concepts that share a word cannot both have
    their way with it, and meet halfway. Unlike ``least-squares`` it does nothing for inputs that foreign prompts hold
    as well, so a concept merged alone comes back on its own words only. The paper knows keys and values of
    cross-attention; other layers are solved in the same way, by what they see.
    Reference: Kumari et al., arXiv 2212.04488, constrained optimization to merge concepts.

    Attributes:
        directions: The most directions a concept may claim in a layer; 0 for no limit.
        threshold: How many times as strong as under foreign prompts a direction must be.
        ridge: Damping, as a share of the mean diagonal of A and of ``Uᵀ U``; below 1e-6 counts as 1e-6.
    """

    needs_inputs: ClassVar[bool] = True

    directions: int = option(8, lowest=0, highest=LARGEST)
    threshold: float = option(2.0, lowest=0, highest=LARGEST)
    ridge: float = option(1e-3, lowest=0, highest=LARGEST)

    @property
    def needs_foreign(self) -> bool:
        """Always True: outputs on foreign prompts must not change."""
        return True

    def merge(self, changes: WeightChanges) -> Stack:
        """Solve for the change; every concept owns the directions it claims, and the rank is their number, also 0.

        Raises:
            ConfigurationError: When a Gram matrix is missing, that of foreign prompts too, or of another width.
        """
        grams = concept_grams(changes)
        if changes.foreign is None:
            raise ConfigurationError(
                f"layer {changes.layer}: merging algorithm 'custom-diffusion' needs the Gram matrix of foreign "
                "prompts; none given"
            )
        values, vectors = torch.linalg.eigh(damped(dense(changes.foreign), self.ridge))
        root, inverse = (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T
        parts = {part.concept: part for part in changes.parts}
        claims = {concept: self._claim(inverse @ gram @ inverse) for concept, gram in grams.items()}
        claimed = torch.cat(list(claims.values()), 1)
        # (Uᵀ U + εI)⁻¹ Uᵀ by the SVD of U: were Uᵀ U inverted, its large numbers would cancel
        left, sizes, right = torch.linalg.svd(claimed, full_matrices=False)
        solved = right.T * (sizes / (sizes.square() + max(self.ridge, SMALLEST_RIDGE))) @ left.T @ inverse
        runs = []
        for (concept, claim), rows in zip(
            claims.items(), solved.split([claim.shape[1] for claim in claims.values()]), strict=True
        ):
            part = parts.get(concept)
            if part is not None:  # any other leaves this weight alone, and wants it left alone on its words
                wanted = part.change.up.double() @ (part.change.down.double() @ root @ claim)
                runs.append(Stack.of(concept, LowRank(wanted, rows.contiguous()), part.strength))
        return Stack.stack(runs)

    def _claim(self, relative: Tensor) -> Tensor:
        """The eigenvectors, ``(in, m)``, whose eigenvalue passes the threshold, the largest first."""
        values, vectors = torch.linalg.eigh(relative)
        most = self.directions or len(values)
        count = min(most, int((values > self.threshold).sum()))
        return vectors.flip(1)[:, :count]
