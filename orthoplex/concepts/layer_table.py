"""The layers of families of bases: names, shapes, inputs and original modules; read without torch or a model.

Each file in ``layers/`` is the table of one family: its components, rules for the layers of bases of any size, the
layers of its published versions by name, and what the model's own code calls them. ``python -m
orthoplex.models.families.tables`` writes them. Layers stand in groups of names; ``blocks.{0-18}`` in a name stands for
19 groups, and ``{}`` in the layer of an original module for the number of its block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import resources
from typing import Any, Literal, TypeVar, final

Sees = Literal["text", "picture", "both", "time"]
"""The inputs of a layer: positions of the text, before any picture is mixed in; positions of the picture; both, or text
that pictures are mixed into; or, once a picture, the time and what is embedded beside it."""
Role = Literal["denoiser", "text encoder"]
NameKind = Literal["diffusers", "original"]
"""Whose names of layers a file has: those of diffusers, or those of the code that the model was published with."""
Layers = TypeVar("Layers")
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


@final
@dataclass(frozen=True)
class OriginalModule:
    """A module of a denoiser as the model's own code has it.

    Attributes:
        layers: The canonical layers whose output rows lie one below the other in it, from its first row on: one layer,
            or several that are fused in it.
        swapped_halves: True if its output rows are those of its layer with both halves exchanged.
    """

    layers: tuple[str, ...]
    swapped_halves: bool = False


@final
@dataclass(frozen=True, eq=False)
class LayerTable:
    """The layers of one family.

    Attributes:
        family: The name of its file, such as ``stable_diffusion``.
        components: Component to its role.
        rules: Pattern of layer names, as shells write them, and what such a layer sees; the first that fits counts.
        versions: Version to its layers' shapes: ``(out, in)``, and two numbers more for a convolution's window.
        weights: Version to the shapes of all that a file may change: its layers, and its norms, ``(n,)``.
        encoder_tags: Text encoder to its name in other programs' files: ``kohya`` such as ``te1``, ``comfy`` such as
            ``clip_l``; without those that have none.
        kohya_names: Whose names of layers the files of kohya's programs usually have in this family.
        originals: Version to its original modules, as ``original_modules`` returns them; without those of no known
            original names.
    """

    family: str
    components: Mapping[str, Role]
    rules: Sequence[tuple[str, Sees]]
    versions: Mapping[str, Mapping[str, tuple[int, ...]]]
    weights: Mapping[str, Mapping[str, tuple[int, ...]]]
    encoder_tags: Mapping[str, Mapping[str, str]]
    kohya_names: NameKind
    originals: Mapping[str, Mapping[str, OriginalModule]]

    @staticmethod
    def from_json(family: str, values: Mapping[str, Any]) -> LayerTable:
        """Read a table from the JSON values of its file; a version may be a name of another, which it equals."""
        swapped = frozenset(values.get("swapped_halves", ()))
        return LayerTable(
            family,
            values["components"],
            [(pattern, sees) for pattern, sees in values["rules"]],
            _Versions(values["versions"], _matrix_shapes),
            _Versions(values["versions"], _shapes),
            values.get("encoder_tags", {}),
            values.get("kohya_names", "diffusers"),
            _Versions(values.get("original_modules", {}), partial(_original_modules, swapped=swapped)),
        )

    def original_modules(self, version: str) -> Mapping[str, OriginalModule]:
        """Return the denoiser's modules under the names of the model's own code, without any prefix.

        Args:
            version: One of ``versions``.

        Returns:
            Such as ``double_blocks.0.img_attn.qkv`` to its module, norms too; empty for a family of no known original
            names. A norm whose parameter is ``scale`` there has that at the end of its name.
        """
        return self.originals.get(version, {})

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
    return _tables_by_version().get(version)


def components_of(version: str) -> tuple[str, ...]:
    """Return the components that concepts of a version may change; those of every family if no table knows it."""
    table = layer_table(version)
    tables = layer_tables().values() if table is None else (table,)
    return tuple(dict.fromkeys(component for table in tables for component in table.components))


@cache
def layer_tables() -> Mapping[str, LayerTable]:
    """Return every family's table, by family."""
    tables: dict[str, LayerTable] = {}
    for file in resources.files("orthoplex.concepts").joinpath("layers").iterdir():
        if file.name.endswith(".json"):
            family = file.name.removesuffix(".json")
            tables[family] = LayerTable.from_json(family, json.loads(file.read_text("utf-8")))
    return dict(sorted(tables.items()))


@cache
def _tables_by_version() -> dict[str, LayerTable]:
    """Every version's table."""
    return {version: table for table in layer_tables().values() for version in table.versions}


@final
class _Versions(Mapping[str, Layers]):
    """Version to layers, each expanded when it is first asked for."""

    def __init__(self, written: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Layers]) -> None:
        """Take what a file has.

        Args:
            written: Version to its groups of layers, or to the version that it equals.
            read: Returns the layers of groups.
        """
        self._written, self._read = written, read
        self._expanded: dict[str, Layers] = {}

    def __getitem__(self, version: str) -> Layers:
        written = self._written[version]
        if isinstance(written, str):
            return self[written]
        if version not in self._expanded:
            self._expanded[version] = self._read(written)
        return self._expanded[version]

    def __iter__(self) -> Iterator[str]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)


def _shapes(groups: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {layer: tuple(shape) for layer, shape, _ in _leaves(groups)}


def _matrix_shapes(groups: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of linear layers and convolutions, without norms."""
    return {layer: shape for layer, shape in _shapes(groups).items() if len(shape) > 1}


def _original_modules(groups: Mapping[str, Any], swapped: frozenset[str]) -> dict[str, OriginalModule]:
    return {
        name: OriginalModule(tuple(layer.replace("{}", number) for layer in layers), name in swapped)
        for name, layers, number in _leaves(groups)
    }


def _leaves(groups: Mapping[str, Any], prefix: str = "", number: str = "") -> Iterator[tuple[str, list[Any], str]]:
    """Yield every full name in groups, what stands there, and the number of the block that it is in."""
    for key, value in groups.items():
        for name, block in _blocks(key):
            if isinstance(value, dict):
                yield from _leaves(value, f"{prefix}{name}.", block or number)
            else:
                yield prefix + name, value, block or number


def _blocks(key: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a key stands for, with the block's number where it is a range."""
    span = _RANGE.search(key)
    if span is None:
        yield key, ""
        return
    for number in range(int(span[1]), int(span[2]) + 1):
        yield f"{key[: span.start()]}{number}{key[span.end() :]}", str(number)
