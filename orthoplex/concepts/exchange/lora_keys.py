"""The keys of a LoRA file, sorted by the module that they change; read from a header, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from orthoplex.files import Header, TensorEntry

_SPELLINGS = {
    "down": ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "lora_A"),
    "up": ("lora_up.weight", "lora_B.weight", "lora_B.default.weight", "lora.up.weight", "lora_B"),
    "mid": ("lora_mid.weight",),
    "alpha": ("alpha",),
    "magnitude": ("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    "difference": ("diff", "diff_b", "w_norm", "b_norm"),
}
"""Part of a module's change to the endings of its keys, as programs spell them."""
_PARTS = {f".{ending}": part for part, endings in _SPELLINGS.items() for ending in endings}
_PARTS |= {"_lora.down.weight": "down", "_lora.up.weight": "up"}
_ENDING = re.compile("(?:" + "|".join(map(re.escape, sorted(_PARTS, key=len, reverse=True))) + ")$")


@final
@dataclass(frozen=True)
class LoraKeys:
    """The keys of one file.

    Attributes:
        modules: Module, as the file names it, to part to its tensor; parts are ``down``, ``up``, ``mid``, ``alpha``,
            ``magnitude``, ``LoHa``, ``LoKr`` and ``difference`` (the last of several tensors of one part).
        spellings: Module to the endings of its keys, such as ``.lora_down.weight``.
        others: Keys that are part of no change.
        metadata: The text pairs of the header.
        alphas: Module to its alpha; a module without a number here has its rank.
    """

    modules: Mapping[str, Mapping[str, TensorEntry]]
    spellings: Mapping[str, frozenset[str]]
    others: tuple[str, ...]
    metadata: Mapping[str, str]
    alphas: Mapping[str, float]

    @staticmethod
    def of(header: Header, alphas: Mapping[str, float] = MappingProxyType({})) -> LoraKeys:
        """Sort the keys of a header.

        Args:
            header: Of a LoRA file.
            alphas: Module to its alpha, where the numbers have been read.
        """
        modules: dict[str, dict[str, TensorEntry]] = {}
        spellings: dict[str, set[str]] = {}
        others = []
        for key, entry in header.entries.items():
            ending = _ENDING.search(key)
            if ending is None or ending.start() == 0:
                others.append(key)
                continue
            module = key[: ending.start()]
            modules.setdefault(module, {})[_PARTS[ending[0]]] = entry
            spellings.setdefault(module, set()).add(ending[0])
        frozen = {module: frozenset(endings) for module, endings in spellings.items()}
        return LoraKeys(modules, frozen, tuple(others), header.metadata, alphas)

    def rank(self, module: str) -> int | None:
        """The rank of a module: rows of its down factor; None without one."""
        down = self.modules[module].get("down")
        return down.shape[0] if down is not None and down.shape else None

    def alpha(self, module: str) -> float | None:
        """The alpha of a module: its number, else its rank; None for a module without either."""
        return self.alphas.get(module, self.rank(module))

    def windows(self) -> list[str]:
        """Modules whose down factor is a convolution wider than one pixel."""
        downs = {module: parts["down"].shape for module, parts in self.modules.items() if "down" in parts}
        return [module for module, shape in downs.items() if len(shape) > 2 and max(shape[2:]) > 1]
