"""A style: the names that a group of programs gives to layers, and the endings of the keys that it writes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from orthoplex.concepts.layer_table import LayerTable, OriginalModule, component_of


@final
@dataclass(frozen=True)
class Spelling:
    """The endings of the keys that a style writes behind a module's name.

    Attributes:
        down: The factor ``(r, in)``.
        up: The factor ``(out, r)``.
        alpha: The number alpha; None if the style writes none, since alpha is the rank.
        difference: A full difference of a weight; None if the style has no spelling of it.
        bias: A difference of a bias; None if the style has no spelling of it.
    """

    down: str
    up: str
    alpha: str | None = None
    difference: str | None = None
    bias: str | None = None


class Style(ABC):
    """The names of one group of programs; a style knows no family and no numbers.

    Attributes:
        name: Its name in ``STYLES``.
        description: The programs that write it, for people.
        spelling: The endings of its keys.
        bundles_embeddings: True if its files hold embeddings as ``bundle_emb`` keys.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    spelling: ClassVar[Spelling]
    bundles_embeddings: ClassVar[bool] = False

    @abstractmethod
    def read_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield every name that files of this style give to a module of a version; one module may have several.

        Args:
            table: The family's table.
            version: A version of it.
        """

    @abstractmethod
    def written_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield one name for each module, as this style writes it; together they cover every layer once."""

    @abstractmethod
    def fits(self, name: str) -> bool:
        """True if a module's name may be of this style; for modules that no table knows."""


def flat(path: str) -> str:
    """Return a path with underscores in the place of dots."""
    return path.replace(".", "_")


def denoiser_of(table: LayerTable) -> str:
    """Return the component that is the denoiser."""
    return next(component for component, role in table.components.items() if role == "denoiser")


def denoiser_paths(table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
    """Yield the diffusers path of every layer of the denoiser, without its component."""
    denoiser = denoiser_of(table)
    for layer in table.weights[version]:
        if component_of(layer) == denoiser:
            yield layer.partition(".")[2], OriginalModule((layer,))


def encoder_paths(table: LayerTable, version: str) -> Iterator[tuple[str, str, OriginalModule]]:
    """Yield the component, the path without it and the layer, for every layer of the text encoders."""
    denoiser = denoiser_of(table)
    for layer in table.weights[version]:
        component, _, path = layer.partition(".")
        if component != denoiser:
            yield component, path, OriginalModule((layer,))


def is_shared(table: LayerTable, version: str) -> Callable[[str], bool]:
    """Return what says of a path whether several text encoders may have it, if they had blocks enough.

    Args:
        table: The family's table.
        version: A version of it.
    """
    kinds = {(component, _kind(path)) for component, path, _ in encoder_paths(table, version)}
    counts = Counter(kind for _, kind in kinds)
    return lambda path: counts[_kind(path)] > 1


def _kind(path: str) -> str:
    """A path without the numbers of blocks."""
    return re.sub(r"\d+", "#", path)


def covering(table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
    """Yield the denoiser's modules under their original names, and layers without one under their diffusers paths."""
    covered: set[str] = set()
    for name, module in table.original_modules(version).items():
        if covered.isdisjoint(module.layers):
            covered.update(module.layers)
            yield name, module
    for path, module in denoiser_paths(table, version):
        if covered.isdisjoint(module.layers):
            yield path, module
