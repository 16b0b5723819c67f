"""Write the layer tables of families, which ``concepts`` reads without any model.

python -m orthoplex.models.families.tables [FAMILY …], all families where none is named
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import orthoplex.concepts
from orthoplex.models.families import FAMILIES, family_of
from orthoplex.models.families.layouts import LAYOUTS
from orthoplex.models.families.layouts.layout import Layout
from orthoplex.models.layer_names import component_name

FOLDER = Path(orthoplex.concepts.__file__).with_name("layers")
Group = dict[str, Any]


def layouts() -> dict[str, Layout]:
    """Return the layout of every family, by the name of its table."""
    known = {id(layout) for layout in LAYOUTS.values()}
    own = {row.module: family_of(name).layout for name, row in FAMILIES.items()}
    return {**LAYOUTS, **{name: layout for name, layout in own.items() if id(layout) not in known}}


def table_text(layout: Layout) -> str:
    """Return the file of a family's table; equal blocks, and equal names of two versions, are written once."""
    versions: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    swapped: dict[str, None] = {}
    for version, networks in layout.published().items():
        if isinstance(networks, str):
            versions[version] = modules[version] = networks
            continue
        shapes = _shapes(networks)
        originals = layout.names.originals(shapes)
        versions[version] = grouped(shapes)
        tree = grouped({name: list(module.layers) for name, module in originals.items()})
        modules[version] = next((other for other, known in modules.items() if known == tree), tree)
        swapped |= dict.fromkeys(name for name, module in originals.items() if module.swapped_halves)
    values = {
        "components": dict(layout.components),
        "encoder_tags": {encoder: dict(tags) for encoder, tags in layout.names.encoder_tags.items()},
        "kohya_names": layout.names.kohya_names,
        "rules": list(layout.rules.items()),
        "versions": versions,
        "original_modules": modules,
        "swapped_halves": list(swapped),
    }
    return _lines(values) + "\n"


def _shapes(networks: Mapping[str, nn.Module]) -> dict[str, list[int]]:
    """Every linear layer, convolution and norm by name, and the shape of its weight, in the order of the model."""
    return {
        component_name(component, path): list(weight.shape)
        for component, network in networks.items()
        for path, module in network.named_modules()
        if (weight := module._parameters.get("weight")) is not None
        and (isinstance(module, nn.Linear | nn.Conv2d) or weight.ndim == 1)  # norms of every library
    }


def grouped(entries: Mapping[str, list[Any]]) -> Group:
    """Return names with dots as nested groups; numbered groups that are equal, or differ in their number, become one.

    Args:
        entries: Name to numbers, or to the names of layers.
    """
    tree: Group = {}
    for name, entry in entries.items():
        *path, last = name.split(".")
        group = tree
        for part in path:
            group = group.setdefault(part, {})
        group[last] = entry
    return _folded(tree)


def _folded(group: Group) -> Group:
    """A group with equal neighbours as one, and groups of a single entry joined to its name."""
    inner = {key: _folded(value) if isinstance(value, dict) else value for key, value in group.items()}
    folded: Group = {}
    for keys, value in _runs(inner):
        key = keys[0] if len(keys) == 1 else f"{{{keys[0]}-{keys[-1]}}}"
        if isinstance(value, dict) and len(value) == 1:
            ((below, only),) = value.items()
            if "{" not in key or "{" not in below:
                key, value = f"{key}.{below}", only
        folded[key] = value
    return folded


def _runs(group: Group) -> list[tuple[list[str], Any]]:
    """The entries of a group, those that follow one another by number and are equal together."""
    runs: list[tuple[list[str], Any]] = []
    for key, value in group.items():
        if runs and key.isdecimal() and runs[-1][0][-1] == str(int(key) - 1):
            keys = [*runs[-1][0], key]
            merged = _merged([group[key] for key in keys], keys)
            if merged is not None:
                runs[-1] = keys, merged
                continue
        runs.append(([key], value))
    return runs


def _merged(values: Sequence[object], numbers: Sequence[str]) -> object | None:
    """What stands for all of some values, ``{}`` for each one's number; None if they differ in more."""
    match values[0]:
        case str():
            parts = zip(*(str(value).split(".") for value in values), strict=False)
            text = ".".join("{}" if part == tuple(numbers) else part[0] for part in parts)
            pairs = zip(values, numbers, strict=True)
            return text if all(text.replace("{}", number) == value for value, number in pairs) else None
        case list() | dict() as first:
            names = [_names(value) for value in values]
            if any(type(value) is not type(first) for value in values) or any(name != names[0] for name in names):
                return None
            inner = {name: _merged([value[name] for value in values], numbers) for name in names[0]}  # pyright: ignore
            if None in inner.values():
                return None
            return inner if isinstance(first, dict) else list(inner.values())
        case first:
            return first if all(value == first for value in values) else None


def _names(value: object) -> list[Any]:
    """The keys of a group or the places of a list, in order."""
    match value:
        case dict():
            return list(value)
        case list():
            return list(range(len(value)))
        case _:
            return []


def _lines(value: object, indent: str = "") -> str:
    """JSON with a line for each entry of tables that are longer than a line, and everything else on its line."""
    line = json.dumps(value)
    if not isinstance(value, dict) or len(indent) + len(line) < 100:
        return line
    inner = indent + " "
    rows = [f"{inner}{json.dumps(key)}: {_lines(entry, inner)}" for key, entry in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def main(families: Sequence[str]) -> None:
    """Command line: write families' tables.

    Args:
        families: Their names; empty for all.
    """
    for name, layout in layouts().items():
        if not families or name in families:
            (FOLDER / f"{name}.json").write_text(table_text(layout), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
