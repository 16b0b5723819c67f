"""Full: the whole weight may change, as in Custom Diffusion, which trains cross-attention keys and values."""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from orthoplex.adapters.adapter import Adapter, AdapterConfig, Site
from orthoplex.adapters.low_rank import LowRank
from orthoplex.errors import ConfigurationError


@final
class Full(Adapter):
    """``ΔW = up · I``: ``up (out, in)`` is trained from zero, ``down`` is the identity, frozen.

    There is no rank to choose, and ``alpha`` is ignored. ``LowRank.of_matrix`` writes the change as factors: the change
    and an identity of its smaller side. So a concept file is an ordinary low-rank file, though a large one.
    Reference: Kumari et al., Multi-Concept Customization of Text-to-Image Diffusion (Custom Diffusion),
    arXiv 2212.04488, single-concept fine-tuning: there the keys and values of cross-attention and the token's vector
    are trained.

    Its learning rate lets the first step move outputs as far as ``orthogonal``'s does. A step of Adam is of size η in
    every entry of ``up``, so an output moves by ``η · ‖z‖₁ ≈ 0.8 η √n ‖z‖`` for n inputs z: ``0.8 η √in ‖x‖`` where the
    whole weight learns, ``0.4 η r/√in ‖x‖`` for r rows of length 0.5; equal at ``η_full = η / 2 · r / in = η / 32`` for
    16 slots.
    """

    learning_rate = 2e-4

    @classmethod
    def owns_slot(cls, config: AdapterConfig) -> bool:
        """Return False: the method changes all directions."""
        return False

    @classmethod
    def check_rank(cls, config: AdapterConfig) -> None:
        """Refuse any rank but the default.

        Raises:
            ConfigurationError: When a rank is given.
        """
        if config.rank != "proportional":
            raise ConfigurationError(
                f"rank is {config.rank!r} with method {config.method!r}; allowed is 'proportional', the default, which "
                "counts for nothing there: the whole weight changes"
            )

    def __init__(self, config: AdapterConfig, site: Site) -> None:
        """Build the change of the weight at ``site``."""
        super().__init__(config, site)
        self.scaling = 1.0

    def _rank(self, config: AdapterConfig, site: Site) -> int:
        return site.in_features

    def _initial_down(self, config: AdapterConfig, site: Site) -> Tensor:
        return torch.eye(site.in_features)

    def _set_down(self, down: Tensor) -> None:
        self.register_buffer("down", down)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``ΔW x``; no product with the identity is made."""
        return functional.linear(x, self.up.to(x.dtype))

    @torch.no_grad()
    def factors(self) -> LowRank:
        """Return the change and an identity of its smaller side, apart from the graph."""
        return LowRank.of_matrix(self.up.detach().clone())

    @torch.no_grad()
    def load_factors(self, factors: LowRank) -> None:
        """Take over factors, so that ``factors()`` then returns them bit for bit.

        Raises:
            ConfigurationError: When they are not a change of this shape and an identity of its smaller side.
        """
        wide = self.up.shape[0] <= self.up.shape[1]
        whole, identity = (factors.down, factors.up) if wide else (factors.up, factors.down)
        eye = torch.eye(min(self.up.shape))
        if whole.shape != self.up.shape or not torch.equal(identity.float().cpu(), eye):
            raise ConfigurationError(
                f"layer {self.site.layer}: factors have shapes up {tuple(factors.up.shape)} and down "
                f"{tuple(factors.down.shape)}; allowed are a change {tuple(self.up.shape)} and, as its "
                f"{'up' if wide else 'down'}, an identity of width {len(eye)}"
            )
        self.up.copy_(whole)
