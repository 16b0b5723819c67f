"""The names that files of every style give to the modules of one version, in one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.concepts.exchange.styles.style import flat
from orthoplex.concepts.layer_table import OriginalModule, layer_tables

_SAMPLE = 16
"""Modules of a file that are looked for in every family."""


@final
@dataclass(frozen=True)
class NamedModule:
    """A module of a version, under one of its names.

    Attributes:
        style: The style that names it so.
        module: The layers in it.
    """

    style: str
    module: OriginalModule


@cache
def read_names(family: str, version: str) -> Mapping[str, NamedModule]:
    """Return every name of every style to the module that it means.

    Args:
        family: A layer table's family.
        version: A version of it.
    """
    table = layer_tables()[family]
    names: dict[str, NamedModule] = {}
    for style in STYLES.values():
        for name, module in style.read_names(table, version):
            names.setdefault(name, NamedModule(style.name, module))
    return names


def likely_versions(modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield every family and version that may have modules of these names; equal versions are given once.

    A few names are looked for, whatever stands before them; so most families' names are never worked out.

    Args:
        modules: Modules as a file names them.
    """
    sample = [flat(name) for name in modules[:: max(1, len(modules) // _SAMPLE)]]
    for family, version in versions():
        paths = _flat_paths(family, version)
        if any(_ends_in(name, paths) for name in sample):
            yield family, version


def versions() -> Iterator[tuple[str, str]]:
    """Yield every family with each of its versions that has layers of its own; equal versions are given once."""
    for family, table in layer_tables().items():
        given: list[Mapping[str, tuple[int, ...]]] = []
        for version, layers in table.versions.items():
            if not any(layers == other for other in given):
                given.append(layers)
                yield family, version


@cache
def _flat_paths(family: str, version: str) -> frozenset[str]:
    """The paths of all modules, with underscores in the place of dots."""
    table = layer_tables()[family]
    paths = (layer.partition(".")[2] for layer in table.weights[version])
    return frozenset(flat(path.removeprefix("text_model.")) for path in (*paths, *table.original_modules(version)))


def _ends_in(name: str, paths: frozenset[str]) -> bool:
    return any(name[place:] in paths for place in (0, *(i + 1 for i, sign in enumerate(name) if sign == "_")))


def rows_of(module: OriginalModule, version_layers: Mapping[str, tuple[int, ...]]) -> tuple[int, int, tuple[int, ...]]:
    """Return the output rows, the inputs (times a window's height and width) and the window of a module.

    Args:
        module: The module.
        version_layers: Layer to the shape of its weight.
    """
    shapes = [version_layers[layer] for layer in module.layers]
    return sum(shape[0] for shape in shapes), math.prod(shapes[0][1:]), shapes[0][2:]
