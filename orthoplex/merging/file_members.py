"""The files of a merge: what they must have in common, and what they bring besides layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.layer_table import layer_tables
from orthoplex.concepts.whole_layers import WholeLayers, full_layers
from orthoplex.errors import ConfigurationError
from orthoplex.merging.block_names import block_map
from orthoplex.merging.block_weights import selection
from orthoplex.merging.strengths import Strengths, changed_modules

_SHARED_METADATA = (
    "modelspec.architecture",
    "modelspec.implementation",
    "modelspec.prediction_type",
    "modelspec.resolution",
    "ss_base_model_version",
    "ss_sd_model_hash",
    "ss_sd_model_name",
    "ss_v2",
)
"""What a header says of the model, and not of one training; a merged file has what all of its files say alike."""

_TRIGGERS = ("modelspec.trigger_phrase", "ss_trigger_word", "trigger_word")
"""Keys of a header with words for prompts; the first is the one that is written."""


@final
@dataclass(frozen=True, eq=False)
class Member:
    """A file in a merge, with full weights as matrices of full rank if an algorithm wants them so.

    Attributes:
        file: The file.
        layers: Layer to its whole change.
    """

    file: LoraFile
    layers: Mapping[str, LowRank]

    @staticmethod
    def of(file: LoraFile, *, with_full: bool) -> Member:
        """Return a file as a member; ``with_full`` adds the full differences of weights to the layers."""
        return Member(file, WholeLayers(file, matrices_alone=True) if with_full and full_layers(file) else file.layers)

    @property
    def name(self) -> str:
        """The file's label."""
        return self.file.label

    @cached_property
    def content_hash(self) -> str:
        """The file's content hash."""
        return self.file.content_hash


def check_files(files: Sequence[tuple[LoraFile, Strengths]]) -> list[tuple[LoraFile, Strengths]]:
    """Return the files in the order of (name, content hash).

    Raises:
        ConfigurationError: When there is none, an item is no pair, or one is there twice.
    """
    if not files:
        raise ConfigurationError("a merge of 0 files was asked for; at least 1 is allowed")
    hashes: dict[str, LoraFile] = {}
    for pair in files:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], LoraFile)):
            raise ConfigurationError(
                f"a merge of {type(pair).__name__} was asked for; allowed are (file, strengths) pairs"
            )
        if not isinstance(pair[1], Strengths):
            raise ConfigurationError(
                f"{pair[0].label} has strengths of type {type(pair[1]).__name__}; allowed are Strengths, such as "
                "Strengths(0.8)"
            )
        other = hashes.setdefault(pair[0].content_hash, pair[0])
        if other is not pair[0] or sum(item[0] is other for item in files) > 1:
            raise ConfigurationError(
                f"{other.label} and {pair[0].label} have the same content; one is allowed, with the sum of strengths"
            )
    return sorted(files, key=lambda pair: (pair[0].name, pair[0].content_hash))


def check_kin(files: Sequence[LoraFile]) -> None:
    """Refuse files of different families or versions, and unknown ones that have no layer in common.

    Raises:
        ConfigurationError: Names both files, and what each is for.
    """
    first = files[0]
    for file in files[1:]:
        if file.family != first.family or not _same_version(first, file):
            raise ConfigurationError(
                f"{first.label} is for {_kin(first)} and {file.label} for {_kin(file)}; files of one family and "
                "version are allowed"
            )
        if file.family is not None:
            continue
        if file.style != first.style:
            raise ConfigurationError(
                f"no layer table knows {first.label} and {file.label}, of styles {first.style!r} and {file.style!r}; "
                "one style is allowed"
            )
        if not {*first.layers, *first.differences} & {*file.layers, *file.differences}:
            raise ConfigurationError(
                f"no layer table knows {first.label} and {file.label}, and they have no layer in common, such as "
                f"{next(iter((*first.layers, *first.differences)), 'any')}; allowed are files of one model"
            )


def _same_version(first: LoraFile, second: LoraFile) -> bool:
    """True if two versions have the same layers; an unknown one is judged by its shapes, in the merge."""
    table = layer_tables().get(first.family or "")
    if first.version == second.version or table is None or first.version is None or second.version is None:
        return True
    return table.versions.get(first.version) == table.versions.get(second.version)


def _kin(file: LoraFile) -> str:
    if file.family is None:
        return "a model that no layer table knows"
    return file.family if file.version is None else f"{file.version} ({file.family})"


def collect_embeddings(files: Sequence[LoraFile]) -> dict[str, Mapping[str, Tensor]]:
    """Return the embeddings of all files.

    Raises:
        ConfigurationError: When two files have one token.
    """
    owners: dict[str, LoraFile] = {}
    for file in files:
        for token in file.embeddings:
            if token in owners:
                raise ConfigurationError(
                    f"token {token} is claimed by {owners[token].label} and {file.label}; one is allowed: give "
                    "one of the two another name first"
                )
            owners[token] = file
    return {token: file.embeddings[token] for token, file in owners.items()}


def common_windows(files: Sequence[LoraFile]) -> dict[str, tuple[int, int]]:
    """Return layer to window of all files.

    Raises:
        ConfigurationError: When a layer has two windows.
    """
    windows: dict[str, tuple[int, int]] = {}
    for file in files:
        full = {layer: file.differences[parameter].shape[2:] for layer, parameter in full_layers(file).items()}
        own = {layer: (shape[0], shape[1]) for layer, shape in full.items() if len(shape) == 2}
        for layer, window in (own | dict(file.windows)).items():
            if windows.setdefault(layer, window) != window:
                raise ConfigurationError(
                    f"layer {layer} has a window of {window} in {file.label} but {windows[layer]} in an earlier file; "
                    "one window is allowed"
                )
    return windows


def common_metadata(files: Sequence[LoraFile]) -> dict[str, str]:
    """Return what all headers say alike of the model, and the words for prompts of all files."""
    first = files[0].metadata
    shared = {
        key: first[key]
        for key in _SHARED_METADATA
        if key in first and all(file.metadata.get(key) == first[key] for file in files)
    }
    return shared | joined_triggers([file.metadata for file in files])


def joined_triggers(headers: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the text pair with the trigger words of several headers, in their order; none where there are none."""
    triggers = dict.fromkeys(
        header[key].strip() for header in headers for key in _TRIGGERS if header.get(key, "None").strip() != "None"
    )
    phrase = ", ".join(trigger for trigger in triggers if trigger)
    return {_TRIGGERS[0]: phrase} if phrase else {}


def weight_shape(layer: str, shape: tuple[int, int], files: Sequence[LoraFile]) -> tuple[int, ...]:
    """Return the shape of a layer's own weight, of which a change has the flattened shape."""
    for file in files:
        if layer in file.windows:
            height, width = file.windows[layer]
            return shape[0], shape[1] // (height * width), height, width
        full = file.differences.get(f"{layer}.weight")
        if full is not None:
            return tuple(full.shape)
    return shape


def selected_layers(files: Sequence[tuple[LoraFile, Strengths]], only: Sequence[str]) -> Callable[[str], bool]:
    """Return the test of the layers that are merged.

    Args:
        files: The files.
        only: Parts of the model, as block weights name them; empty for all.

    Raises:
        ConfigurationError: When a name names no layer.
    """
    if not only:
        return lambda layer: True
    first = files[0][0]
    layers = {layer for file, _ in files for layer in changed_modules(file)}
    windows = {layer for file, _ in files for layer, window in file.windows.items() if window != (1, 1)}
    places = block_map(first.family, first.version, sorted(layers), windows)
    tests = [selection(name, places) for name in only]
    chosen = {layer for layer, place in places.places.items() if any(test(layer, place) for test in tests)}
    return lambda layer: layer in chosen
