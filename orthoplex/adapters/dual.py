"""Dual: the first frozen directions respond to the concept's own tokens; the others are rows of its slot."""

from typing import final

import torch
from torch import Tensor

from orthoplex.adapters.adapter import Adapter, AdapterConfig, Site
from orthoplex.adapters.orthogonal import frozen_rows
from orthoplex.errors import ConfigurationError
from orthoplex.subspaces import gaussian_rows


@final
class Dual(Adapter):
    """``ΔW = (alpha / rank) · up · down``, ``down = [D; down_scale · S Q]`` frozen, ``up`` trained from zero.

    D are directions of the concept's tokens as the layer sees them (``subspaces.dual_rows``): they respond to
    these tokens most, and as little as possible to everything else, other concepts' tokens included. S Q are the rows
    of the concept's slot, as in ``orthogonal``; with rank 0 there are none. The update is low-rank in both cases.

    D are random rows at first. Training calls ``set_token_directions`` once the token vectors are known.
    """

    lowest_rank = 0
    reads_tokens = True
    has_frozen_directions = True
    learning_rate = 6e-3  # a frozen down factor wants a several times larger one

    @classmethod
    def owns_slot(cls, config: AdapterConfig) -> bool:
        """Return True if some rows belong to a slot."""
        return config.has_slots and config.rank != 0

    @classmethod
    def uses_basis(cls, config: AdapterConfig) -> bool:
        """Return True if there are rows besides the dual directions and these rows are not Gaussian."""
        return config.basis != "gaussian" and config.rank != 0

    def __init__(self, config: AdapterConfig, site: Site) -> None:
        """Build the change of the weight at ``site``."""
        self.duals = config.duals
        super().__init__(config, site)

    def _rank(self, config: AdapterConfig, site: Site) -> int:
        return config.duals + config.rank_of(site.in_features)

    def _initial_down(self, config: AdapterConfig, site: Site) -> Tensor:
        duals = gaussian_rows(width=site.in_features, rank=config.duals, concept_id=site.concept_id, layer=site.layer)
        if config.rank_of(site.in_features) == 0:
            return duals
        return torch.cat([duals, frozen_rows(config, site, gaussian_name=f"{site.layer} slot")])

    def _set_down(self, down: Tensor) -> None:
        self.register_buffer("down", down)

    def set_token_directions(self, rows: Tensor) -> None:
        """Set the dual directions.

        Args:
            rows: ``(duals, in)``.

        Raises:
            ConfigurationError: When the shape differs.
        """
        if rows.shape != (self.duals, self.down.shape[1]):
            raise ConfigurationError(
                f"layer {self.site.layer}: dual directions have shape {tuple(rows.shape)}; "
                f"allowed is {(self.duals, self.down.shape[1])}"
            )
        self._replace_directions(torch.cat([rows.to(self.down), self.down[self.duals :]]))
