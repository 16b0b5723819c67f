"""Write the layer tables of families, which ``concepts`` reads without any model.

python -m orthoplex.models.families.tables [FILE …], all families where none is named
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

import orthoplex.concepts
from orthoplex.models.families import FAMILIES, family_of
from orthoplex.models.families.family import Family
from orthoplex.models.layer_names import component_name

FOLDER = Path(orthoplex.concepts.__file__).with_name("layers")


def table_text(family: type[Family]) -> str:
    """Return the file of a family's table, a layer a line."""
    roles = {part: "text encoder" if part in family.text_encoders else "denoiser" for part in family.changed}
    versions = {
        version: networks if isinstance(networks, str) else _shapes(networks)
        for version, networks in family.published().items()
    }
    values = {"components": roles, "rules": list(family.rules.items()), "versions": versions}
    return _lines(values) + "\n"


def _shapes(networks: Mapping[str, nn.Module]) -> dict[str, list[int]]:
    """Every linear layer and convolution by name, and the shape of its weight, in the order of the model."""
    return {
        component_name(component, path): list(module.weight.shape)
        for component, network in networks.items()
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _lines(value: object, indent: str = "") -> str:
    """JSON with nested tables a line for each entry, and everything else on its line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = indent + " "
    rows = [f"{inner}{json.dumps(key)}: {_lines(entry, inner)}" for key, entry in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def main(modules: Sequence[str]) -> None:
    """Command line: write families' tables.

    Args:
        modules: Names of their files in this folder; empty for all.
    """
    for pipeline_class, row in FAMILIES.items():
        if modules and row.module not in modules:
            continue
        (FOLDER / f"{row.module}.json").write_text(table_text(family_of(pipeline_class)), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
