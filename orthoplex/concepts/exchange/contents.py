"""The contents of a LoRA file by its header: layers, payloads, and keys that cannot be read; without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from orthoplex.concepts.exchange.adapter_settings import (
    CONFIG_NAME,
    TENSORS_NAME,
    FileSettings,
    is_of_peft,
    settings_of,
    several_adapters,
)
from orthoplex.concepts.exchange.detection import Detected, detect, style_of, unknown_module
from orthoplex.concepts.exchange.embedding_keys import (
    BUNDLE,
    TOKEN_KEY,
    EmbeddingPlace,
    bundled_places,
    embedding_places,
)
from orthoplex.concepts.exchange.encoders import encoders_of
from orthoplex.concepts.exchange.names import read_names
from orthoplex.concepts.exchange.payloads import NUMBERS
from orthoplex.concepts.exchange.stored_modules import StoredModule, stored_modules
from orthoplex.concepts.exchange.stored_numbers import read_numbers
from orthoplex.concepts.foreign_files import other_kind
from orthoplex.concepts.layer_table import OriginalModule, layer_tables
from orthoplex.errors import FileFormatError
from orthoplex.files import Header, read_header

_WEIGHT_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Data types of weights, as a header names them."""


@final
@dataclass(frozen=True)
class LayerSource:
    """Where the change of one parameter stands in a file.

    Attributes:
        module: The module that holds it.
        start: Its first row in the module's change.
        shape: The shape of the parameter; a convolution's has a window where it is known.
        is_part: True if the module holds other layers too.
        swapped_halves: True if the module has its rows with both halves exchanged.
    """

    module: StoredModule
    start: int
    shape: tuple[int, ...]
    is_part: bool = False
    swapped_halves: bool = False


@final
@dataclass(frozen=True)
class LoraContents:
    """What a header says.

    Attributes:
        path: The file of the tensors.
        header: Its header.
        detected: Style, family and version.
        layers: Layer to the source of its low-rank change.
        differences: Parameter to the source of its full difference.
        embeddings: Key to its token and text encoder.
        refused: Key to the reason why it cannot be read.
        alphas: Module to its alpha, for those whose alpha stands in the file.
        factors: Module to what stands before its product, for those whose factor stands outside of the tensors.
        problem: Why family or version are not clear; empty if they are.
    """

    path: Path
    header: Header
    detected: Detected
    layers: Mapping[str, LayerSource]
    differences: Mapping[str, LayerSource]
    embeddings: Mapping[str, EmbeddingPlace]
    refused: Mapping[str, str]
    alphas: Mapping[str, float]
    factors: Mapping[str, float]
    problem: str

    @property
    def windows(self) -> dict[str, tuple[int, int]]:
        """Layer to its window, for every changed convolution."""
        return {
            layer: (source.shape[2], source.shape[3]) for layer, source in self.layers.items() if len(source.shape) == 4
        }


@dataclass
class _Sorted:
    """Parameters as they are met."""

    layers: dict[str, LayerSource] = field(default_factory=dict)
    differences: dict[str, LayerSource] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    owners: dict[str, StoredModule] = field(default_factory=dict)


def tensor_file(path: Path) -> Path:
    """Return the file of the tensors: the file itself, or the one in a folder that PEFT wrote.

    Raises:
        FileFormatError: If it is a folder of several adapters, or an adapter without tensors.
    """
    is_adapter = path.is_dir() and (path / CONFIG_NAME).is_file()
    advice = "" if is_adapter else several_adapters(path)
    if advice:
        raise FileFormatError(f"{path}: {advice}")
    if not is_adapter:
        return path
    _check_adapter(path / TENSORS_NAME)
    return path / TENSORS_NAME


def _check_adapter(file: Path) -> None:
    """Say of a folder of PEFT without tensors what is missing.

    Raises:
        FileFormatError: Names the file, and a pickle that is there in its place.
    """
    if file.exists():
        return
    pickle = file.with_suffix(".bin")
    there = f"; {pickle.name} is a pickle, PEFT writes it anew with safe_serialization=True" if pickle.exists() else ""
    raise FileFormatError(f"{file.parent}: is an adapter of PEFT without its tensors, {file.name}{there}")


def lora_contents(path: Path, family: str | None = None) -> LoraContents:
    """Read a header and find every layer in it.

    Args:
        path: The file, or a folder that PEFT wrote.
        family: The family or version to take, by name; None finds it.

    Raises:
        ConfigurationError: If there is no such family.
        FileFormatError: If the file is missing or damaged, or is no LoRA file.
    """
    path = tensor_file(path)
    header = read_header(path)
    header.check_whole(path)
    sizes = {key: entry.shape for key, entry in header.entries.items()}
    token = header.metadata.get(TOKEN_KEY, path.stem)
    alone = embedding_places(sizes, token, encoders_of(_version_named(family)))
    if alone is not None:
        return LoraContents(path, header, Detected("bare", None, None), {}, {}, alone.places, alone.refused, {}, {}, "")
    stored = stored_modules(header, [key for key in header.entries if not key.startswith(BUNDLE)])
    bundled = [key for key in header.entries if key.startswith(BUNDLE)]
    if not stored.modules and not bundled:
        other = other_kind(header)
        if other or not stored.refused:
            raise FileFormatError(f"{path}: {other or _no_lora(header)}")
    shapes = {
        module.name: (module.form.shape[0], math.prod(module.form.shape[1:]))
        for module in stored.modules
        if module.parameter == "weight"
    }
    problem = ""
    try:
        detected = detect(shapes, header.metadata, family)
    except FileFormatError as error:
        detected, problem = Detected(style_of(shapes), None, None), str(error)
    sorted_ = _Sorted(refused=dict(stored.refused))
    sorted_.refused.update(dict.fromkeys(stored.others, "is no part of a change of a layer"))
    sorted_.refused.update(_wrong_types(header, stored.modules))
    alphas, scales = _numbers(path, header, stored.modules, sorted_.refused)
    for module in stored.modules:
        if not any(key in sorted_.refused for key in module.keys.values()):
            _sort(module, detected, sorted_)
    bundle = bundled_places(sizes, encoders_of(detected.version))
    sorted_.refused.update(bundle.refused)
    settings = settings_of(path, header.metadata, from_peft=is_of_peft(header.entries))
    factors = _factors(settings, sorted_, alphas, scales)
    return LoraContents(
        path,
        header,
        detected,
        sorted_.layers,
        sorted_.differences,
        bundle.places,
        sorted_.refused,
        alphas,
        factors,
        problem,
    )


def reasons_in_words(refused: Mapping[str, str]) -> str:
    """Return the keys that cannot be read, by reason: the first of each, and how many more there are.

    Args:
        refused: Key to the reason.
    """
    by_reason: dict[str, list[str]] = {}
    for key, reason in refused.items():
        by_reason.setdefault(reason, []).append(key)
    return "; ".join(
        f"'{keys[0]}'{f' and {len(keys) - 1} more' if len(keys) > 1 else ''}: {reason}"
        for reason, keys in by_reason.items()
    )


def _wrong_types(header: Header, modules: Iterable[StoredModule]) -> Iterator[tuple[str, str]]:
    """Yield the keys of modules with a part of a type that weights do not have, with the reason."""
    for module in modules:
        for part, key in module.keys.items():
            if part not in NUMBERS and header.entries[key].dtype not in _WEIGHT_TYPES:
                reason = f"'{key}' has type {header.entries[key].dtype}; allowed are {', '.join(_WEIGHT_TYPES)}"
                yield from dict.fromkeys(module.keys.values(), reason).items()
                break


def _numbers(
    path: Path, header: Header, modules: Iterable[StoredModule], refused: dict[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Module to its alpha, and to its scale; modules whose numbers cannot be used are added to ``refused``."""
    alphas: dict[str, float] = {}
    scales: dict[str, float] = {}
    owners = {module.keys[part]: (part, module) for module in modules for part in NUMBERS if part in module.keys}
    values = read_numbers(path, header, owners)
    for key, (part, module) in owners.items():
        entry, value = header.entries[key], values.get(key)
        if value is None:
            reason = f"{part} has shape {entry.shape} and type {entry.dtype}; allowed is one number"
        elif not math.isfinite(value) or value <= 0:
            reason = f"{part} is {value:g}; allowed are finite numbers above 0"
        else:
            (alphas if part == "alpha" else scales)[module.name] = value
            continue
        refused.update(dict.fromkeys(module.keys.values(), reason))
    return alphas, scales


def _factors(
    settings: FileSettings, into: _Sorted, alphas: Mapping[str, float], scales: Mapping[str, float]
) -> dict[str, float]:
    """Module to its factor in the settings, which name it as the file does, or as we do; refuses those in doubt."""
    factors: dict[str, float] = {}
    names: dict[str, list[str]] = {}
    for parameter, module in into.owners.items():
        names.setdefault(module.name, []).append(parameter.rpartition(".")[0])
    for module in {id(module): module for module in into.owners.values()}.values():
        rank = module.form.rank
        if not module.is_scaled:
            continue
        own = {settings.factor(name, rank) for name in (module.name, *names[module.name])} - {None}
        beside = alphas[module.name] / rank if rank and module.name in alphas else None
        values = [value for value in (*own, beside, scales.get(module.name)) if value is not None]
        if any(not math.isclose(value, values[0], rel_tol=1e-3) for value in values):
            given = ", ".join(f"{value:g}" for value in sorted(values))
            reason = f"has several factors in its alpha, its scale and the header's settings: {given}; allowed is one"
            into.refused.update(dict.fromkeys(module.keys.values(), reason))
        elif own:
            factors[module.name] = values[0]
    return factors


def _version_named(family: str | None) -> str | None:
    """The version that a name of a family or a version stands for."""
    if family is None or family not in layer_tables():
        return family
    return next(iter(layer_tables()[family].versions))


def _no_lora(header: Header) -> str:
    if not header.entries:
        return "holds no tensors, allowed is a LoRA file"
    first = next(iter(header.entries))
    return f"is no LoRA file: none of its {len(header.entries)} tensors is a part of one, as in '{first}'"


def _sort(module: StoredModule, detected: Detected, into: _Sorted) -> None:
    """Find the layers of one module, and note each, or the reason why it cannot be read."""
    try:
        for parameter, source in _parameters(module, detected):
            if parameter in into.owners:
                other = next(iter(into.owners[parameter].keys.values()))
                raise FileFormatError(f"changes '{parameter}', which '{other}' changes too")
            into.owners[parameter] = module
            if module.form.exact_rank is None:
                into.differences[parameter] = source
            else:
                into.layers[parameter.rpartition(".")[0]] = source
    except FileFormatError as error:
        into.refused.update(dict.fromkeys(module.keys.values(), str(error)))


def _parameters(module: StoredModule, detected: Detected) -> Iterator[tuple[str, LayerSource]]:
    """Yield every parameter that a module changes, by its canonical name.

    Raises:
        FileFormatError: If no table knows the module, or its shape is another.
    """
    if detected.family is None or detected.named_as is None:
        yield f"{module.name}.{module.parameter}", LayerSource(module, 0, module.form.shape)
        return
    table = layer_tables()[detected.family]
    named = read_names(detected.family, detected.named_as).get(module.name)
    if named is None:
        component = module.name.partition(".")[0]
        if component in table.components and module.payload.endswith("difference"):
            yield f"{module.name}.{module.parameter}", LayerSource(module, 0, module.form.shape)
            return
        raise FileFormatError(unknown_module(module.name, detected.family, detected.named_as))
    shapes = table.weights[detected.named_as]
    if detected.version is None:
        shapes = _own_shapes(module, named.module, shapes)
    yield from _rows(module, named.module, shapes, detected.named_as)


def _own_shapes(
    module: StoredModule, original: OriginalModule, layers: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's layers by the file's own, for a base of sizes that no version has.

    Raises:
        FileFormatError: If the rows of the layers cannot be told, or it has another number of sizes.
    """
    rows, *inputs = module.form.shape
    first, parts = layers[original.layers[0]], len(original.layers)
    if rows % parts or len({layers[layer][0] for layer in original.layers}) > 1:
        raise FileFormatError(
            f"has {rows} rows of {parts} layers, and no version has its sizes; allowed are parts of one size"
        )
    if module.parameter == "weight" and (len(inputs) + 1, *inputs[1:]) != (len(first), *first[2:]):
        inputs = _unfolded(inputs, first, module.form.shape)
    return dict.fromkeys(original.layers, (rows // parts, *inputs))


def _unfolded(inputs: list[int], published: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """The inputs of a weight that is written with more or fewer windows of one number, or flattened."""
    columns, window = math.prod(inputs), published[2:]
    if len(published) == 1:
        raise FileFormatError(f"changes a weight of shape {shape}, a norm has one size")
    if columns % math.prod(window):
        raise FileFormatError(f"changes a weight of shape {shape}, its window is {window}")
    return [columns // math.prod(window), *window]


def _rows(
    module: StoredModule, original: OriginalModule, layers: Mapping[str, tuple[int, ...]], version: str
) -> Iterator[tuple[str, LayerSource]]:
    is_bias = module.parameter == "bias"
    shapes = [layers[layer][:1] if is_bias else layers[layer] for layer in original.layers]
    whole = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    own = module.form.shape
    if not is_bias and len(whole) == 1 and module.form.exact_rank is not None:
        raise FileFormatError(f"is a low-rank change of a norm of shape {whole}; allowed is a full difference")
    flattened = (whole[0], math.prod(whole[1:])) if len(whole) > 1 else whole
    if _without_ones(own) not in (_without_ones(whole), flattened):
        raise FileFormatError(f"changes a weight of shape {own}, {version} has {whole}")
    start = 0
    for layer, shape in zip(original.layers, shapes, strict=True):
        yield (
            f"{layer}.{module.parameter}",
            LayerSource(module, start, shape, len(shapes) > 1, original.swapped_halves),
        )
        start += shape[0]


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the window of one point, which layers have or not."""
    return shape[:2] if math.prod(shape[2:]) == 1 else shape
