"""The contents of a LoRA file as its header tells them: layers, payloads, and keys that cannot be read; without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from orthoplex.concepts.exchange.adapter_settings import CONFIG_NAME, TENSORS_NAME, FileSettings, settings_of
from orthoplex.concepts.exchange.detection import Detected, detect
from orthoplex.concepts.exchange.names import read_names
from orthoplex.concepts.exchange.stored_modules import StoredModule, stored_modules
from orthoplex.concepts.foreign_files import description
from orthoplex.concepts.layer_table import OriginalModule, layer_tables
from orthoplex.errors import FileFormatError
from orthoplex.files import Header, read_header

BUNDLED = "bundle_emb."
"""The beginning of the keys of embeddings that are bundled with a LoRA."""


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
        settings: Factors outside of the tensors.
        layers: Layer to the source of its low-rank change.
        differences: Parameter to the source of its full difference.
        embedding_keys: Keys of bundled embeddings.
        refused: Key to the reason why it cannot be read.
    """

    path: Path
    header: Header
    detected: Detected
    settings: FileSettings
    layers: Mapping[str, LayerSource]
    differences: Mapping[str, LayerSource]
    embedding_keys: tuple[str, ...]
    refused: Mapping[str, str]

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
    """Return the file of the tensors: the file itself, or the one in a folder that PEFT wrote."""
    is_adapter = path.is_dir() and (path / CONFIG_NAME).is_file()
    return path / TENSORS_NAME if is_adapter else path


def lora_contents(path: Path, family: str | None = None) -> LoraContents:
    """Read a header and find every layer in it.

    Args:
        path: The file, or a folder that PEFT wrote.
        family: The family or version to take, by name; None finds it.

    Raises:
        ConfigurationError: If there is no such family.
        FileFormatError: If the file is missing or damaged, is no LoRA file, or its family or version is not clear.
    """
    path = tensor_file(path)
    header = read_header(path)
    header.check_whole(path)
    embedding_keys = tuple(key for key in header.entries if key.startswith(BUNDLED))
    stored = stored_modules(header, [key for key in header.entries if not key.startswith(BUNDLED)])
    if not stored.modules and not stored.refused and not embedding_keys:
        raise FileFormatError(f"{path}: {description(header) or _no_lora(header)}")
    shapes = {
        module.name: (module.form.shape[0], math.prod(module.form.shape[1:]))
        for module in stored.modules
        if module.parameter == "weight" and module.payload != "norm difference"
    }
    try:
        detected = detect(shapes, header.metadata, family)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    sorted_ = _Sorted(refused=dict(stored.refused))
    sorted_.refused.update(dict.fromkeys(stored.others, "is no part of a change of a layer"))
    for module in stored.modules:
        _sort(module, detected, sorted_)
    settings = settings_of(path, header.metadata)
    return LoraContents(
        path,
        header,
        detected,
        settings,
        sorted_.layers,
        sorted_.differences,
        embedding_keys,
        sorted_.refused,
    )


def _no_lora(header: Header) -> str:
    if not header.entries:
        return "holds no tensors, allowed is a LoRA file"
    return f"is no LoRA file: none of its {len(header.entries)} tensors is a part of one, as in '{next(iter(header.entries))}'"


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
    if detected.family is None or detected.version is None:
        yield f"{module.name}.{module.parameter}", LayerSource(module, 0, module.form.shape)
        return
    table = layer_tables()[detected.family]
    named = read_names(detected.family, detected.version).get(module.name)
    if named is None:
        component = module.name.partition(".")[0]
        if component in table.components and module.form.exact_rank is None:
            yield f"{module.name}.{module.parameter}", LayerSource(module, 0, module.form.shape)
            return
        raise FileFormatError(f"is of a module that {detected.version} does not have")
    yield from _rows(module, named.module, table.versions[detected.version], detected.version)


def _rows(
    module: StoredModule, original: OriginalModule, layers: Mapping[str, tuple[int, ...]], version: str
) -> Iterator[tuple[str, LayerSource]]:
    is_bias = module.parameter == "bias"
    shapes = [layers[layer][:1] if is_bias else layers[layer] for layer in original.layers]
    whole = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    own = module.form.shape
    if own[0] != whole[0] or math.prod(own) != math.prod(whole):
        raise FileFormatError(f"changes a weight of shape {own}, {version} has {whole}")
    start = 0
    for layer, shape in zip(original.layers, shapes, strict=True):
        yield (
            f"{layer}.{module.parameter}",
            LayerSource(module, start, shape, len(shapes) > 1, original.swapped_halves),
        )
        start += shape[0]
