"""LoRACLR: one change that every concept's outputs are pulled to, and that keeps different concepts' outputs apart."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.merging.algorithms.algorithm import LARGEST, Algorithm, WeightChanges
from orthoplex.merging.algorithms.data_aware import concept_grams
from orthoplex.merging.systems import damped, solve_damped
from orthoplex.options import option

_NOTHING = 1e-10
"""Squared distances from here down are zero; the root has no slope there."""


@final
@dataclass(frozen=True)
class Loraclr(Algorithm):
    """The change that a contrastive loss learns: outputs near to the concept's own, and not near to another's.

        L = 1/k Σ_i [ d_ii² + max(0, m − min_{j≠i} d_ij)² ] + w γ ‖ΔW‖² / σ²,
        d_ij² = ‖ΔW X_i − s_j ΔW_j X_j‖² / σ²,    σ² = mean_i ‖s_i ΔW_i X_i‖²,    γ = mean diagonal of the G_i.

    The pull, the push against the nearest other concept, and the penalty are the paper's and its public code's. What is
    reconstructed here, because a merge has neither the base's weights nor inputs but Gram matrices ``G_i = E[x xᵀ]``:

    - ``X_i`` are the columns of the symmetric root ``G_i^(1/2)``, surrogate inputs with exactly this Gram matrix. The
      pull depends on nothing else, so that it is exact. The push compares two sets of inputs pair by pair, and the
      symmetric roots pair what two concepts both see with itself (equal Gram matrices give equal inputs); the original
      pairs the words of equal templates.
    - Distances are between what is added, and not between outputs: ``W₀ x_i − W₀ x_j`` is missing from the push. From
      the pull it drops out.
    - Distances are in units of σ, so that one margin suits all layers; there the margin is 0.5 as it stands.
    - The penalty is on the squared norm, as in a ridge, and in the units of the pull (γ, σ²). The public code
      penalises the norm itself, and adds the pull once more, as a mean over numbers.
    - There, 50 steps of AdamW from zero. Here the pull and the penalty are minimised in closed form, which is
      ``least-squares``, and L-BFGS goes on from there, with strong Wolfe line search in coordinates in which they are a
      sphere; without a push at work it has nothing to do. It needs no learning rate and draws nothing at random. As the
      loss pulls outside the span of the concepts' ups nowhere, the change stays low-rank.

    Reference: Simsar et al., LoRACLR, arXiv 2412.09622; its public code, ``enisimsar/LoRACLR``.

    Attributes:
        margin: m, in units of the concepts' own outputs; 0 for no push.
        weight: w, as a share of the mean diagonal of the Gram matrices; below 1e-6 counts as 1e-6.
        steps: Iterations of L-BFGS.
    """

    needs_inputs: ClassVar[bool] = True

    margin: float = option(1.0, lowest=0, highest=LARGEST)
    weight: float = option(1e-3, lowest=0, highest=LARGEST)
    steps: int = option(50, lowest=0, highest=LARGEST)

    def merge(self, changes: WeightChanges) -> Stack:
        """Minimise the loss; the rank is that of the sum, at most out.

        Columns have no owner, for the strengths are in the loss.

        Raises:
            ConfigurationError: When a Gram matrix is missing or of another width.
        """
        grams = concept_grams(changes)
        stacked = changes.stacked().low_rank
        basis = torch.linalg.qr(stacked.up.double())[0]
        own = {part.concept: basis.T @ part.change.up.double() @ part.change.down.double() for part in changes.parts}
        strengths = {part.concept: part.strength for part in changes.parts}
        unchanged = torch.zeros(basis.shape[1], changes.shape[1], dtype=torch.float64)
        wanted = torch.stack([own[name] * strengths[name] if name in own else unchanged for name in grams])
        inputs = torch.stack(list(grams.values()))
        energy = float(((wanted @ inputs) * wanted).sum()) / len(wanted)
        if energy <= 0:
            return Stack.of(None, stacked.scaled(0.0))
        mean = inputs.mean(0)
        start = solve_damped(mean, (wanted @ inputs).mean(0), self.weight)
        solved = start
        if self.margin > 0 and self.steps > 0 and len(wanted) > 1:
            solved = self._search(start, wanted, inputs, energy)
        return Stack.of(None, LowRank(basis.float().contiguous(), solved.float().contiguous()))

    def _search(self, start: Tensor, wanted: Tensor, inputs: Tensor, energy: float) -> Tensor:
        """Go on from ``start (q, in)``, which minimises the loss without its push.

        In coordinates ``B = ΔW (mean G_i + wI)^(1/2)`` all else is ``‖B − B_start‖²`` and a constant.
        """
        sphere = symmetric_root(damped(inputs.mean(0), self.weight))
        roots = torch.stack([symmetric_root(gram) for gram in inputs])
        targets, towards = (wanted @ roots).flatten(1), torch.linalg.solve(sphere, roots)
        centre = start @ sphere

        def loss(point: Tensor) -> Tensor:
            push = self._push((point @ towards).flatten(1), targets, energy)
            return (point - centre).square().sum() / energy + push

        return torch.linalg.solve(sphere, minimised(loss, centre, self.steps).T).T

    def _push(self, outputs: Tensor, targets: Tensor, energy: float) -> Tensor:
        """Return ``mean_i max(0, m − min_{j≠i} d_ij)²`` of outputs and targets ``(k, n)``."""
        squares = outputs.square().sum(1)[:, None] + targets.square().sum(1)[None] - 2 * outputs @ targets.T
        distances = (squares / energy).clamp_min(_NOTHING).sqrt()
        others = ~torch.eye(len(outputs), dtype=torch.bool)
        nearest = distances.where(others, torch.inf).min(1).values
        return (self.margin - nearest).clamp_min(0).square().mean()


def symmetric_root(matrix: Tensor) -> Tensor:
    """Return ``M^(1/2)`` of a symmetric matrix; eigenvalues below 0, which rounding makes, count as 0.

    Args:
        matrix: ``(n, n)`` float64.
    """
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    """Return where L-BFGS with strong Wolfe line search arrives from ``start``; it draws nothing at random.

    Args:
        loss: A differentiable scalar of a tensor like ``start``.
        start: Where it begins.
        steps: The most iterations.
    """
    point = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=steps,
        max_eval=25 * steps,  # a line search may take several
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(point)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return point.detach()
