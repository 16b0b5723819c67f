"""The names that files of every style give to the modules of one version, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import final

from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.concepts.layer_table import OriginalModule, layer_tables


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


def versions() -> Iterator[tuple[str, str]]:
    """Yield every family with each of its versions that has layers of its own; equal versions are given once."""
    for family, table in layer_tables().items():
        given: list[Mapping[str, tuple[int, ...]]] = []
        for version, layers in table.versions.items():
            if not any(layers == other for other in given):
                given.append(layers)
                yield family, version


def rows_of(module: OriginalModule, version_layers: Mapping[str, tuple[int, ...]]) -> tuple[int, int, tuple[int, ...]]:
    """Return the output rows, the inputs (times a window's height and width) and the window of a module.

    Args:
        module: The module.
        version_layers: Layer to the shape of its weight.
    """
    shapes = [version_layers[layer] for layer in module.layers]
    window = shapes[0][2:]
    inputs = shapes[0][1]
    for size in window:
        inputs *= size
    return sum(shape[0] for shape in shapes), inputs, window
