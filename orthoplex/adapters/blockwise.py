"""Blockwise: a concept owns a block of one factor; the rest of that factor is zero and stays zero."""

import math
from typing import final

import torch
from torch import Tensor, nn

from orthoplex.adapters.adapter import Adapter, AdapterConfig, Site
from orthoplex.subspaces import block


@final
class Blockwise(Adapter):
    """``ΔW = (alpha / rank) · up · down``, both trained, one of them on the concept's block only.

    Reading ``rows``: ``up`` is non-zero on the block of output rows that the concept's slot names; the sum of concepts
    touches every weight at most once, whatever their inputs. Reading ``columns``: ``down`` is non-zero on a block of
    input columns; the downs of different concepts are orthogonal, as in Orthogonal Adaptation with the identity as
    basis, but trained.

    ``up`` starts at zero. ``down`` starts uniform in ``±1/√n``, n the inputs that it reads.

    The abstract of BlockLoRA (Zhu et al., arXiv 2503.08575) names the parameterisation without its layout: both
    readings are our reconstruction.

    Raises:
        CapacityError: When the slot lies beyond the configuration's slots.
        ConfigurationError: When the layer is narrower than the number of slots.
    """

    @classmethod
    def owns_slot(cls, config: AdapterConfig) -> bool:
        """Return True: a concept owns its block, whatever the basis."""
        return True

    @classmethod
    def partition(cls, config: AdapterConfig) -> str:
        """Return the blocks of one factor."""
        return f"blockwise, blocks={config.blocks}, slots={config.slots}"

    @classmethod
    def slot_limit(cls, config: AdapterConfig) -> int | None:
        """Return the number of blocks."""
        return config.slots

    def __init__(self, config: AdapterConfig, site: Site) -> None:
        """Build the change of the weight at ``site``."""
        super().__init__(config, site)
        rows, columns = _owned(config, site)
        if config.blocks == "rows":
            _keep_zero_outside(self.up, _indicator(site.out_features, rows)[:, None])
        else:
            _keep_zero_outside(self.down, _indicator(site.in_features, columns)[None, :])

    def _initial_down(self, config: AdapterConfig, site: Site) -> Tensor:
        rank, (_, columns) = config.rank_of(site.in_features), _owned(config, site)
        size = columns.stop - columns.start
        down = torch.zeros(rank, site.in_features)
        down[:, columns] = (2.0 * torch.rand(rank, size, generator=site.generator()) - 1.0) / math.sqrt(size)
        return down

    def _set_down(self, down: Tensor) -> None:
        self.down = nn.Parameter(down)


def _owned(config: AdapterConfig, site: Site) -> tuple[slice, slice]:
    """The rows of the weight that the concept may change, and the columns."""
    slot = config.slot_of(site.concept_id)
    rows, columns = slice(0, site.out_features), slice(0, site.in_features)
    width = site.out_features if config.blocks == "rows" else site.in_features
    owned = block(width=width, blocks=config.slots, index=slot, layer=site.layer)
    return (owned, columns) if config.blocks == "rows" else (rows, owned)


def _indicator(width: int, owned: slice) -> Tensor:
    inside = torch.zeros(width)
    inside[owned] = 1.0
    return inside


def _keep_zero_outside(parameter: Tensor, inside: Tensor) -> None:
    """Let no gradient reach a parameter outside its block: zeros then stay zeros, bit for bit."""
    parameter.register_hook(lambda gradient: gradient * inside.to(gradient))
