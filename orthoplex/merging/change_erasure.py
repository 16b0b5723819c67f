"""Erasure in closed form: a trained change becomes nearly zero on prompts without its concept."""

import math

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms.data_aware import solve_damped


def closed_form_erasure(
    change: LowRank, own: Tensor, foreign: Tensor, *, weight: float, ridge: float = 1e-4
) -> LowRank:
    """Return a change with the same effect on a concept's own inputs and the least effect on foreign inputs.

    ``argmin_ΔW' E‖ΔW' x − ΔW x‖² + weight · E₀‖ΔW' x‖² + ε‖ΔW'‖² = ΔW G (G + weight · G₀ + εI)⁻¹`` with
    ``G = E[x xᵀ]`` over own inputs and ``G₀`` over foreign ones. ``up`` stays, and ``down`` becomes
    ``down G (…)⁻¹``. The rank stays; the rows of ``down`` are no longer orthonormal. The formula is ``LeastSquares``
    for a single concept, hence gradient fusion (Gu et al., Mix-of-Show, arXiv 2305.18292) applied before any merge.
    A sum of such changes needs no data.

    Args:
        change: ``ΔW``, of shape ``(out, in)``.
        own: G ``(in, in)``.
        foreign: G₀ ``(in, in)``.
        weight: Weight of the foreign inputs against the concept's own; from 0, finite.
        ridge: ε, as a share of the mean diagonal of ``G + weight · G₀``; below 1e-6 counts as 1e-6.

    Returns:
        Factors of the same rank, float32.

    Raises:
        ConfigurationError: When the weight is negative or the shapes do not fit.
    """
    _check(change, own, foreign, weight)
    seen = own.double()
    down = solve_damped(seen + weight * foreign.double(), change.down.double() @ seen, ridge)
    return LowRank(change.up.float(), down.float().contiguous())


def erasure_in_rows(
    change: LowRank, own: Tensor, foreign: Tensor, *, rows: Tensor, weight: float, ridge: float = 1e-4
) -> LowRank:
    """Return the same as ``closed_form_erasure`` among the changes that read certain rows alone, ``ΔW' = U S``.

    ``U = ΔW G Sᵀ (S (G + weight · G₀) Sᵀ + εI)⁻¹``.

    Args:
        change: ``ΔW``, of shape ``(out, in)``.
        own: G ``(in, in)``.
        foreign: G₀ ``(in, in)``.
        rows: S ``(r, in)``, such as those of a slot.
        weight: See ``closed_form_erasure``.
        ridge: See ``closed_form_erasure``.

    Returns:
        Factors of rank r, float32; ``down`` is S.

    Raises:
        ConfigurationError: When the weight is negative or the shapes do not fit.
    """
    _check(change, own, foreign, weight)
    directions, seen = rows.double(), own.double()
    total = directions @ (seen + weight * foreign.double()) @ directions.T
    up = change.up.double() @ solve_damped(total, change.down.double() @ seen @ directions.T, ridge)
    return LowRank(up.float().contiguous(), rows.float())


def _check(change: LowRank, own: Tensor, foreign: Tensor, weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ConfigurationError(f"the weight of erasure is {weight}; allowed are finite numbers from 0")
    width = change.shape[1]
    for gram in (own, foreign):
        if tuple(gram.shape) != (width, width):
            raise ConfigurationError(
                f"a Gram matrix has shape {tuple(gram.shape)}, the change {change.shape}; allowed is {(width, width)}"
            )
