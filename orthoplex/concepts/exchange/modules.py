"""The modules that a style writes for the changes of a LoRA file; several layers may be fused in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.styles import Spelling, Style
from orthoplex.concepts.layer_table import LayerTable, OriginalModule, layer_tables
from orthoplex.errors import ConfigurationError

_KINDS = (".weight", ".bias")


@final
@dataclass(frozen=True, eq=False)
class WrittenModule:
    """One module of a file to write; its numbers are computed when they are asked for.

    Attributes:
        name: Its name in the style.
        module: The layers in it.
        shapes: Layer to the shape of its weight, ``(out, in)`` or ``(out, in, height, width)``.
        lora: The changes.
        rank: The rank of its low-rank change; 0 if it has none.
        types: Types that hold all of its numbers exactly, its own first.
        full: True if its weight changes by a full difference: then low-rank changes of its other layers are in that.
        biased: True if its bias changes.
    """

    name: str
    module: OriginalModule
    shapes: Mapping[str, tuple[int, ...]]
    lora: LoraFile
    rank: int
    types: tuple[torch.dtype, ...]
    full: bool
    biased: bool

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of down and up at a rank; those of a convolution have a window."""
        first = next(iter(self.shapes.values()))
        rows = sum(shape[0] for shape in self.shapes.values())
        return (rank, *first[1:]), (rows, rank, *(1 for _ in first[2:]))

    def down(self, rank: int) -> Tensor:
        """Return down, filled up with rows of zeros."""
        down, _ = self._factors()
        if len(down) < rank:
            down = torch.cat([down, down.new_zeros(rank - len(down), down.shape[1])])
        return down.reshape(self.factor_shapes(rank)[0])

    def up(self, rank: int) -> Tensor:
        """Return up, filled up with columns of zeros."""
        _, up = self._factors()
        if up.shape[1] < rank:
            up = torch.cat([up, up.new_zeros(len(up), rank - up.shape[1])], dim=1)
        return up.reshape(self.factor_shapes(rank)[1])

    def differences(self, spelling: Spelling) -> Iterator[tuple[str, tuple[int, ...], Callable[[], Tensor]]]:
        """Yield the key's ending, the shape and the value of the weight's and the bias's full difference.

        Raises:
            ConfigurationError: If the style has no spelling of it.
        """
        first = next(iter(self.shapes.values()))
        rows = sum(shape[0] for shape in self.shapes.values())
        if self.full:
            yield self._ending(spelling.difference, "weight"), (rows, *first[1:]), lambda: self._rows(".weight")
        if self.biased:
            yield self._ending(spelling.bias, "bias"), (rows,), lambda: self._rows(".bias")

    def _ending(self, ending: str | None, kind: str) -> str:
        if ending is None:
            raise ConfigurationError(
                f"{self.lora.label}: '{self.name}' changes by a full difference of its {kind}, which this style has no "
                "key for; allowed styles for it are kohya, comfy"
            )
        return ending

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Down and up of all layers; layers of one and the same down share it, others have directions of their own."""
        changes = {layer: self.lora.layers[layer] for layer in self.module.layers if layer in self.lora.layers}
        if len(self.module.layers) == len(changes) == 1:
            (change,) = changes.values()
            dtype = _common_type([change.up.dtype, change.down.dtype])
            return change.down.to(dtype), self._swapped(change.up.to(dtype))
        downs, place = _different_downs(list(changes.values()))
        starts = [sum(len(down) for down in downs[:index]) for index in range(len(downs))]
        rank = sum(len(down) for down in downs)
        ups = []
        for layer in self.module.layers:
            change = changes.get(layer)
            dtype = torch.float32 if change is None else change.up.dtype
            up = torch.zeros(self.shapes[layer][0], rank, dtype=dtype)
            if change is not None:
                start = starts[place[list(changes).index(layer)]]
                up[:, start : start + change.rank] = change.up
            ups.append((change is not None, up))
        dtype = _common_type([up.dtype for is_changed, up in ups if is_changed] + [down.dtype for down in downs])
        whole = torch.cat([up.to(dtype) for _, up in ups])
        return torch.cat([down.to(dtype) for down in downs]), self._swapped(whole)

    def _rows(self, kind: str) -> Tensor:
        """The full difference of all rows: zeros where a layer has none."""
        rows = []
        for layer in self.module.layers:
            shape = self.shapes[layer] if kind == ".weight" else self.shapes[layer][:1]
            value = self.lora.differences.get(layer + kind)
            total = torch.zeros(shape) if value is None else value.reshape(shape)
            if kind == ".weight" and layer in self.lora.layers:
                total = total.float() + self.lora.layers[layer].delta().reshape(shape)
            rows.append(total)
        dtype = _common_type([row.dtype for row in rows])
        return self._swapped(torch.cat([row.to(dtype) for row in rows]))

    def _swapped(self, rows: Tensor) -> Tensor:
        return torch.cat(rows.chunk(2)[::-1]) if self.module.swapped_halves else rows


def written_modules(lora: LoraFile, style: Style, dtype: torch.dtype | None = None) -> list[WrittenModule]:
    """Return the modules that a style writes for all changes of a file.

    Args:
        lora: The changes.
        style: The style.
        dtype: The type that the file shall have: then ``types`` says of this one alone if it is exact.

    Raises:
        ConfigurationError: If the style has no name for a changed layer or parameter, names it.
    """
    names, shapes = _names(lora, style)
    differences = set(lora.differences)
    changed = {*lora.layers, *_difference_layers(lora)}
    modules = []
    for name, module in names:
        if changed.isdisjoint(module.layers):
            continue
        changed -= set(module.layers)
        own = {layer: shapes[layer] for layer in module.layers}
        full = any(f"{layer}.weight" in differences for layer in module.layers)
        biased = any(f"{layer}.bias" in differences for layer in module.layers)
        changes = [lora.layers[layer] for layer in module.layers if layer in lora.layers]
        rank = 0 if full else sum(len(down) for down in _different_downs(changes)[0])
        tensors = (
            [change.delta() for change in changes]
            if full
            else [part for each in changes for part in (each.up, each.down)]
        )
        tensors += [
            lora.differences[layer + kind] for layer in module.layers for kind in _KINDS if layer + kind in differences
        ]
        modules.append(WrittenModule(name, module, own, lora, rank, _exact_types(tensors, dtype), full, biased))
    if changed:
        layer = sorted(changed)[0]
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigurationError(f"{lora.label}: '{layer}'{others} has no name in style '{style.name}'")
    return modules


def _names(lora: LoraFile, style: Style) -> tuple[list[tuple[str, OriginalModule]], Mapping[str, tuple[int, ...]]]:
    """The style's name of every module, and the shape of every layer."""
    table = None if lora.family is None else layer_tables()[lora.family]
    known = {} if table is None or lora.version is None else table.weights[lora.version]
    layers = dict.fromkeys((*lora.layers, *_difference_layers(lora)))
    own = {layer: _own_shape(lora, layer) for layer in layers if layer not in known}
    verbatim = [(layer, OriginalModule((layer,))) for layer in own]
    if table is None:
        if own and style.name != lora.style:
            raise ConfigurationError(
                f"{lora.label}: no table knows its layers, so it is written in its own style '{lora.style}' alone, "
                f"not in '{style.name}'"
            )
        return verbatim, own
    if lora.version is not None:
        return list(style.written_names(table, lora.version)), {**known, **own}
    alike = _names_of_all_versions(table, style, own.keys())
    if alike:
        return alike, own | _sizes_beside(lora, table, alike, own)
    styles = ["diffusers", *(["kohya"] if table.kohya_names == "diffusers" else [])]
    if style.name not in styles:
        raise ConfigurationError(
            f"{lora.label}: its shapes are those of no version of {lora.family}, so it is written in style "
            f"{' or '.join(styles)} alone, not in '{style.name}'"
        )
    alone = replace(table, weights={"": own}, originals={})
    return list(style.written_names(alone, "")), own


def _names_of_all_versions(
    table: LayerTable, style: Style, layers: Set[str]
) -> list[tuple[str, OriginalModule]] | None:
    """The style's modules of layers of unknown sizes; None if no version has them, or versions name them differently.

    Original blocks of U-Nets are numbered through, so that their names depend on how many there are.
    """
    named = [
        [(name, module) for name, module in style.written_names(table, version) if not layers.isdisjoint(module.layers)]
        for version, shapes in table.weights.items()
        if shapes.keys() >= layers
    ]
    return named[0] if named and all(names == named[0] for names in named) else None


def _sizes_beside(
    lora: LoraFile,
    table: LayerTable,
    modules: Iterable[tuple[str, OriginalModule]],
    own: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    """The shapes of unchanged layers that are fused with changed ones, in a file of unknown sizes.

    Raises:
        ConfigurationError: If no changed layer of the module has the same size in the family's versions.
    """
    beside: dict[str, tuple[int, ...]] = {}
    for name, module in modules:
        published = next(shapes for shapes in table.weights.values() if shapes.keys() >= set(module.layers))
        for layer in module.layers:
            alike = [other for other in module.layers if other in own and published[other] == published[layer]]
            if layer not in own and not alike:
                raise ConfigurationError(
                    f"{lora.label}: '{name}' holds '{layer}' too, whose size is not known: its shapes are those of no "
                    f"version of {table.family}; allowed is style diffusers, which has a module for each"
                )
            if layer not in own:
                beside[layer] = own[alike[0]]
    return beside


def _difference_layers(lora: LoraFile) -> list[str]:
    return [parameter.rpartition(".")[0] for parameter in lora.differences]


def _own_shape(lora: LoraFile, layer: str) -> tuple[int, ...]:
    """The shape of a changed weight, its window unfolded; of a bias alone, its length."""
    weight = lora.differences.get(f"{layer}.weight")
    if weight is not None:
        return tuple(weight.shape)
    if layer not in lora.layers:
        return tuple(lora.differences[f"{layer}.bias"].shape)
    rows, columns = lora.layers[layer].shape
    window = lora.windows.get(layer, ())
    return (rows, columns // math.prod(window), *window)


def _different_downs(changes: Sequence[LowRank]) -> tuple[list[Tensor], list[int]]:
    """The downs that differ from all before, and for each change the place of its own among them."""
    downs: list[Tensor] = []
    place = []
    for change in changes:
        index = next((i for i, down in enumerate(downs) if _equal(down, change.down)), len(downs))
        if index == len(downs):
            downs.append(change.down)
        place.append(index)
    return downs, place


def _exact_types(tensors: Sequence[Tensor], dtype: torch.dtype | None) -> tuple[torch.dtype, ...]:
    """Types that hold every number exactly; the first tensor's own before others. Of a given one, that alone."""
    if dtype is not None:
        return (dtype,) if all(_holds(dtype, tensor) for tensor in tensors) else ()
    own = [tensors[0].dtype] if tensors else []
    types = dict.fromkeys(dtype for dtype in (*own, torch.float16, torch.bfloat16) if dtype.itemsize == 2)
    return (*(dtype for dtype in types if all(_holds(dtype, tensor) for tensor in tensors)), torch.float32)


def _holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    return tensor.dtype == dtype or torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


def _common_type(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The type of all, or float32 where they differ."""
    return dtypes[0] if len(set(dtypes)) == 1 else torch.float32
