"""A concept's changes of weights as the tensors of its file: kohya's names, one type, one rank, and alpha equal to it.

Programs differ in what they do with ranks, alphas and types that differ within a file; with one of each, all agree. The
manifest holds the ranks and types as they were, and loading gives them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Literal, TypeVar

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.flat_names import flat_names
from orthoplex.concepts.manifest import Manifest
from orthoplex.concepts.parameter_shapes import BIAS, parameter_shapes
from orthoplex.errors import ConceptFileError
from orthoplex.files import DTYPES, Header

_Part = Literal["up", "down"]
_PARTS: tuple[_Part, _Part] = ("up", "down")
_T = TypeVar("_T")
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def lora_tensors(layers: Mapping[str, LowRank], version: str) -> dict[str, Tensor]:
    """Return the tensors of a file: ``<flat name>.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``.

    Those of a convolution have its window, as kohya writes them. A norm is ``.diff``, a bias ``.diff_b``.

    Args:
        layers: Layer to its change; float16, bfloat16 or float32.
        version: Version of the base's family.

    Raises:
        ConfigurationError: If two layers have one flat name.
    """
    rank = max((change.rank for change in layers.values()), default=0)
    dtype = _common_type((getattr(change, part).dtype for change in layers.values() for part in _PARTS), rank)
    tensors: dict[str, Tensor] = {}
    parameters = parameter_shapes(layers, version)
    for layer, flat in _module_names(layers, version).items():
        change = layers[layer]
        shape = parameters.get(layer, change.shape)
        if len(shape) == 1:
            tensors[flat + _vector_ending(layer)] = change.up.detach()[:, 0].to(dtype).contiguous()
            continue
        up = torch.zeros(change.shape[0], rank, dtype=dtype)
        down = torch.zeros(rank, change.shape[1], dtype=dtype)
        up[:, : change.rank], down[: change.rank] = change.up.detach(), change.down.detach()
        up_shape, down_shape = _factor_shapes(shape, rank)
        tensors |= _named(flat, up.reshape(up_shape), down.reshape(down_shape), torch.tensor(rank, dtype=dtype))
    return tensors


def type_names(layers: Mapping[str, LowRank]) -> dict[str, str]:
    """Return the manifest's ``types``: those of the first layer, and of layers that differ from it."""
    types: dict[str, str] = {}
    for layer, change in sorted(layers.items()):
        for part in _PARTS:
            name = _NAMES[getattr(change, part).dtype]
            if types.setdefault(part, name) != name:
                types[f"{layer} {part}"] = name
    return types


def tensor_table(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the name, data type and shape of every tensor of a file of today's version.

    Raises:
        ConceptFileError: If the manifest's ``types`` lack one, or have one that no file has.
        ConfigurationError: If two layers have one flat name.
    """
    rank = manifest.rank
    types = (_type_of(manifest, layer, part) for layer in manifest.layers for part in _PARTS)
    dtype = _NAMES[_common_type(types, rank)]
    table: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer, flat in _module_names(manifest.layers, manifest.base.family).items():
        out_features, _, in_features = manifest.layers[layer]
        shape = manifest.shapes.get(layer, (out_features, in_features))
        if len(shape) == 1:
            table[flat + _vector_ending(layer)] = (dtype, shape)
            continue
        shapes = _named(flat, *_factor_shapes(shape, rank), ())
        table |= {name: (dtype, shape) for name, shape in shapes.items()}
    return table


def check_tensor_table(header: Header, table: Mapping[str, tuple[str | None, tuple[int, ...]]]) -> None:
    """Refuse a header whose tensors are not those of a table.

    Args:
        header: Of the file.
        table: Name to data type, None for any, and shape.

    Raises:
        ConceptFileError: Names the tensor, and what was allowed.
    """
    unknown = sorted(header.entries.keys() - table.keys())
    for name in sorted(table.keys() - header.entries.keys()):
        instead = f", found instead the unknown tensor '{unknown[0]}'" if unknown else ""
        raise ConceptFileError(f"tensor '{name}' of shape {table[name][1]} is missing{instead}")
    if unknown:
        raise ConceptFileError(f"tensor '{unknown[0]}' is unknown: the manifest lists {len(table)} tensors")
    for name, entry in header.entries.items():
        dtype, shape = table[name]
        if entry.shape != shape:
            raise ConceptFileError(f"tensor '{name}' has shape {entry.shape}, allowed is {shape}")
        if dtype not in (None, entry.dtype):
            raise ConceptFileError(f"tensor '{name}' has data type '{entry.dtype}', allowed is {dtype}")


def factors_of(tensors: Mapping[str, Tensor], manifest: Manifest) -> dict[str, LowRank]:
    """Return the changes of weights, with the ranks and types that they had.

    Raises:
        ConceptFileError: If an alpha is not the rank, a number stands where the manifest says that there is none, or
            numbers are not of their type; names the tensor. Other programs would change weights otherwise than we.
    """
    flat = _module_names(manifest.layers, manifest.base.family)
    layers: dict[str, LowRank] = {}
    for layer, (_, rank, _) in manifest.layers.items():
        if len(manifest.shapes.get(layer, ())) == 1:
            key = flat[layer] + _vector_ending(layer)
            column = _as_type(tensors[key][:, None], _type_of(manifest, layer, "up"), key)
            layers[layer] = LowRank(up=column, down=torch.ones(1, 1, dtype=_type_of(manifest, layer, "down")))
            continue
        up, down, alpha = (tensors[name] for name in _named(flat[layer], "", "", ""))
        up, down = up.flatten(1), down.flatten(1)
        if alpha.item() != manifest.rank:
            raise ConceptFileError(f"tensor '{flat[layer]}.alpha' is {alpha.item():g}, allowed is {manifest.rank}")
        if up[:, rank:].any() or down[rank:].any():
            raise ConceptFileError(
                f"tensors of '{flat[layer]}' hold numbers beyond rank {rank}, which the manifest gives, allowed: zeros"
            )
        layers[layer] = LowRank(
            up=_as_type(up[:, :rank], _type_of(manifest, layer, "up"), f"{flat[layer]}.lora_up.weight"),
            down=_as_type(down[:rank], _type_of(manifest, layer, "down"), f"{flat[layer]}.lora_down.weight"),
        )
    return layers


def old_factors(tensors: Mapping[str, Tensor], manifest: Manifest) -> dict[str, LowRank]:
    """Return the changes of weights of an old file."""
    return {
        layer: LowRank(up=tensors[f"{layer}.lora_B.weight"], down=tensors[f"{layer}.lora_A.weight"])
        for layer in manifest.layers
    }


def _module_names(layers: Iterable[str], version: str) -> dict[str, str]:
    """Return layer to the flat name of its module; that of a bias is its layer's."""
    modules = {layer: layer.removesuffix(BIAS) for layer in sorted(layers)}
    flat = flat_names(modules.values(), version)
    return {layer: flat[module] for layer, module in modules.items()}


def _vector_ending(layer: str) -> str:
    """Return what stands behind the name of a module whose norm or bias changes, as kohya's programs have it."""
    return ".diff_b" if layer.endswith(BIAS) else ".diff"


def _factor_shapes(shape: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of up and down; a convolution's down has its window, and up one of a single number."""
    return (shape[0], rank, *(1 for _ in shape[2:])), (rank, *shape[1:])


def _named(flat: str, up: _T, down: _T, alpha: _T) -> dict[str, _T]:
    """Return the entries of one layer by their names."""
    return {f"{flat}.lora_up.weight": up, f"{flat}.lora_down.weight": down, f"{flat}.alpha": alpha}


def _common_type(types: Iterable[torch.dtype], rank: int) -> torch.dtype:
    """Return the narrowest type that holds all numbers of some types, and the rank, exactly; float16 of none."""
    kinds = list(types) or [torch.float16]
    common = reduce(torch.promote_types, kinds)
    return common if torch.tensor(rank, dtype=common).item() == rank else torch.float32


def _type_of(manifest: Manifest, layer: str, part: _Part) -> torch.dtype:
    key = f"{layer} {part}" if f"{layer} {part}" in manifest.types else part
    name = manifest.types.get(key)
    if name not in DTYPES:
        raise ConceptFileError(f"manifest field 'types.{key}' is {name!r}, allowed are {', '.join(DTYPES)}")
    return DTYPES[name]


def _as_type(numbers: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Return numbers in the type that they had before they were stored in a wider one."""
    exact = numbers.to(dtype, copy=True).contiguous()
    if dtype != numbers.dtype and not torch.equal(exact.to(numbers.dtype), numbers):
        raise ConceptFileError(
            f"tensor '{name}' holds numbers that are none of type {str(dtype).removeprefix('torch.')}, which the "
            "manifest gives them: the content was changed"
        )
    return exact
