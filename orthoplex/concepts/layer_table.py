"""The layers of families of bases: their shapes and the source of their inputs; read without torch or a model.

Each file in ``layers/`` is the table of one family: its components, rules for the layers of bases of any size, and the
layers of its published versions by name. ``python -m orthoplex.models.families.tables`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Literal, final

Sees = Literal["text", "picture", "both", "time"]
"""The inputs of a layer: positions of the text, before any picture is mixed in; positions of the picture; both, or text
that pictures are mixed into; or, once a picture, the time and what is embedded beside it."""
Role = Literal["denoiser", "text encoder"]


@final
@dataclass(frozen=True)
class LayerTable:
    """The layers of one family.

    Attributes:
        components: Component to its role.
        rules: Pattern of layer names, as shells write them, and what such a layer sees; the first that fits counts.
        versions: Version to its layers' shapes: ``(out, in)``, and two numbers more for a convolution's window.
    """

    components: Mapping[str, Role]
    rules: Sequence[tuple[str, Sees]]
    versions: Mapping[str, Mapping[str, tuple[int, ...]]]

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> LayerTable:
        """Read a table from the JSON values of its file; a version may be a name of another, which it equals."""
        shapes = {
            version: {layer: tuple(shape) for layer, shape in layers.items()}
            for version, layers in values["versions"].items()
            if not isinstance(layers, str)
        }
        same = {version: shapes[other] for version, other in values["versions"].items() if isinstance(other, str)}
        return LayerTable(
            values["components"], [(pattern, sees) for pattern, sees in values["rules"]], {**shapes, **same}
        )

    def sees(self, layer: str) -> Sees:
        """Return what a layer sees; ``both`` for a name that no rule knows."""
        for pattern, sees in self.rules:
            if fnmatchcase(layer, pattern):
                return sees
        return "both"

    def reads_features(self, layer: str) -> bool:
        """True if a layer of the denoiser reads text features alone; all such layers get the same inputs."""
        return self.components.get(component_of(layer)) == "denoiser" and self.sees(layer) == "text"


def component_of(layer: str) -> str:
    """The component of a layer: the first part of its name."""
    return layer.partition(".")[0]


def layer_table(version: str) -> LayerTable | None:
    """Return the table of a version's family; None if there is no table.

    Args:
        version: As ``BaseIdentity.family`` has it, such as ``sd1``.
    """
    return _tables().get(version)


def components_of(version: str) -> tuple[str, ...]:
    """Return the components that concepts of a version may change; those of every family if no table knows it."""
    table = layer_table(version)
    tables = _tables().values() if table is None else (table,)
    return tuple(dict.fromkeys(component for table in tables for component in table.components))


@cache
def _tables() -> dict[str, LayerTable]:
    """Every version's table."""
    tables: dict[str, LayerTable] = {}
    for file in resources.files("orthoplex.concepts").joinpath("layers").iterdir():
        if file.name.endswith(".json"):
            table = LayerTable.from_json(json.loads(file.read_text("utf-8")))
            tables |= dict.fromkeys(table.versions, table)
    return tables
