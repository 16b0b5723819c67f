"""Orthogonal adaptation: the down factor is frozen to directions that other concepts do not use."""

from typing import final

from torch import Tensor

from orthoplex.adapters.adapter import Adapter, AdapterConfig, Site
from orthoplex.subspaces import choose_rows, gaussian_rows, shared_basis_rows


def frozen_rows(config: AdapterConfig, site: Site, *, gaussian_name: str) -> Tensor:
    """Return the frozen directions that a configuration's basis gives a concept at one layer, ``(r, in)``.

    Args:
        config: Its basis, rank, slot and ``down_scale``.
        site: The layer, and the concept.
        gaussian_name: The name that Gaussian rows are drawn from, together with the concept's id.

    Raises:
        CapacityError: When the slot lies beyond the layer's capacity.
    """
    width, rank, who = site.in_features, config.rank_of(site.in_features), site.concept_id
    if config.basis == "gaussian":
        rows = gaussian_rows(width=width, rank=rank, concept_id=who, layer=gaussian_name)
    else:
        slot = config.slot_of(who)
        chosen = choose_rows(config.basis, width=width, rank=rank, concept_id=who, layer=site.layer, slot=slot)
        rows = shared_basis_rows(width, chosen)
    return rows * config.down_scale


@final
class Orthogonal(Adapter):
    """``ΔW = (alpha / rank) · up · down`` with ``down`` frozen; only ``up`` is trained, from zero.

    ``down = down_scale · S Q``: rows ``S`` of the shared orthonormal basis ``Q`` (all bases but ``gaussian``), or
    Gaussian rows. As ``down`` gets no gradient, the inputs ``x`` need not be kept for the backward pass: only
    ``down x`` with its r columns is.
    Reference: Po et al., Orthogonal Adaptation for Modular Customization, arXiv 2312.02432, section 4.

    Raises:
        CapacityError: when the slot lies beyond the layer's capacity.
    """

    has_frozen_directions = True
    learning_rate = 6e-3  # a frozen down factor wants a several times larger one

    @classmethod
    def uses_basis(cls, config: AdapterConfig) -> bool:
        """Return True if the rows are not Gaussian."""
        return config.basis != "gaussian"

    def _initial_down(self, config: AdapterConfig, site: Site) -> Tensor:
        return frozen_rows(config, site, gaussian_name=site.layer)

    def _set_down(self, down: Tensor) -> None:
        self.register_buffer("down", down)
