"""PEFT's settings of an adapter: the factors that stand outside of its tensors; read without torch."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from orthoplex.errors import FileFormatError
from orthoplex.files import parse_json, read_json

METADATA_KEY = "lora_adapter_metadata"
"""Of the header's text pair in which diffusers keeps the settings of every component."""
CONFIG_NAME, TENSORS_NAME = "adapter_config.json", "adapter_model.safetensors"
"""The files of a folder that PEFT writes."""
_WRAPPER = "base_model.model."
"""The beginning of the names of all modules that PEFT wraps."""
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPETITION = re.compile(r"[*+{]")
_MOST_REPETITIONS = 3
_LONGEST_VALUE = 200
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "eva_residual", "lora_ga")
"""Beginnings of ``init_lora_weights`` with which PEFT changes the base as well."""


@final
@dataclass(frozen=True)
class AdapterSettings:
    """What PEFT says about the factors of one component.

    Attributes:
        alpha: The alpha of all modules without another.
        alphas: Pattern of a module's name to its alpha.
        rank: The rank of all modules without another.
        ranks: Pattern of a module's name to its rank.
        use_rslora: True if the factor is ``alpha / sqrt(rank)``.
    """

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank: float | None = None
    ranks: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False

    def factor(self, path: str, rank: float | None) -> float | None:
        """Return what stands before a module's product; None if the settings have no alpha.

        Args:
            path: The module's name without its component.
            rank: Its rank in the file; None where the file does not show it, then it is that of the settings.
        """
        alpha = _chosen(self.alphas, path, self.alpha)
        rank = _chosen(self.ranks, path, self.rank) if rank is None else rank
        if alpha is None or rank is None:
            return None
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


@final
@dataclass(frozen=True)
class FileSettings:
    """The settings of a whole file.

    Attributes:
        components: Component to its settings; ``""`` for those of a file without components.
    """

    components: Mapping[str, AdapterSettings] = field(default_factory=dict)

    def factor(self, module: str, rank: float | None) -> float | None:
        """Return what stands before a module's product; None if nothing says it.

        Args:
            module: The module as the file names it.
            rank: Its rank in the file; None where the file does not show it.
        """
        component, _, path = module.partition(".")
        if component in self.components:
            return self.components[component].factor(path, rank)
        return self.components[""].factor(module, rank) if "" in self.components else None


def several_adapters(path: Path) -> str:
    """Return the advice for a folder whose inner folders are adapters of PEFT, each by itself; empty for any other.

    Args:
        path: A file or folder.
    """
    names = sorted(inner.parent.name for inner in path.glob(f"*/{CONFIG_NAME}")) if path.is_dir() else []
    return f"holds the adapters {', '.join(names)} of PEFT; name one, as in {path / names[0]}" if names else ""


def is_of_peft(keys: Iterable[str]) -> bool:
    """Return True for keys as PEFT writes them, whose factors stand in a file beside.

    Args:
        keys: The keys of a file.
    """
    return any(key.startswith(_WRAPPER) for key in keys)


def settings_of(path: Path, metadata: Mapping[str, str], *, from_peft: bool = False) -> FileSettings:
    """Read the settings in a header, or in the ``adapter_config.json`` beside a file of PEFT.

    Args:
        path: The file of the tensors.
        metadata: The text pairs of its header.
        from_peft: True if its keys are PEFT's; a file of the name that PEFT gives is one of PEFT's, too.

    Raises:
        FileFormatError: If they are no settings, or those of an adapter that changes its base as well.
    """
    config = path.with_name(CONFIG_NAME)
    if (from_peft or path.name == TENSORS_NAME) and config.exists():
        try:
            values = read_json(config)
        except (OSError, ValueError, RecursionError) as error:
            raise FileFormatError(f"{config}: cannot be read: {error}") from error
        return FileSettings({"": _settings(values, str(config))})
    if METADATA_KEY not in metadata:
        return FileSettings()
    source = f"{path}: header key '{METADATA_KEY}'"
    try:
        values = parse_json(metadata[METADATA_KEY])
    except ValueError as error:
        raise FileFormatError(f"{source} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FileFormatError(f"{source} is a JSON {type(values).__name__}, allowed is an object")
    components: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        component, _, name = key.partition(".")
        if not component:
            raise FileFormatError(f"{source} has {_short(key)}, allowed are keys that begin with a component")
        components.setdefault(component, {})[name] = value
    return FileSettings({component: _settings(own, source) for component, own in components.items()})


def _settings(values: Any, source: str) -> AdapterSettings:  # noqa: ANN401 - JSON
    if not isinstance(values, dict):
        raise FileFormatError(f"{source} is a JSON {type(values).__name__}, allowed is an object")
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASES):
        raise FileFormatError(
            f"{source} has init_lora_weights '{start}', with which PEFT changes the base as well; "
            "save it with PEFT's path_initial_model_for_weight_conversion, which makes it one of the unchanged base"
        )
    if values.get("fan_in_fan_out"):
        raise FileFormatError(f"{source} has fan_in_fan_out true, allowed is false: weights as (out, in)")
    alpha, alphas = values.get("lora_alpha", values.get("alpha")), values.get("alpha_pattern") or {}
    rank, ranks = values.get("r"), values.get("rank_pattern") or {}
    _check_numbers("lora_alpha", alpha, "alpha_pattern", alphas, source)
    _check_numbers("r", rank, "rank_pattern", ranks, source)
    return AdapterSettings(alpha, alphas, rank, ranks, bool(values.get("use_rslora")))


def _check_numbers(name: str, value: Any, pattern_name: str, patterns: Any, source: str) -> None:  # noqa: ANN401 - JSON
    """Refuse numbers that are none above 0, and patterns that may take for ever.

    Raises:
        FileFormatError: Names the setting and its value.
    """
    if not isinstance(patterns, dict) or not _are_numbers([*patterns.values(), *([] if value is None else [value])]):
        raise FileFormatError(
            f"{source} has {name} {_short(value)} and {pattern_name} {_short(patterns)}, allowed are numbers above 0"
        )
    endless = next((pattern for pattern in patterns if _may_be_endless(pattern)), None)
    if endless is not None:
        raise FileFormatError(
            f"{source} has {pattern_name} {_short(endless)}, allowed are names and patterns without repeated groups"
        )


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _chosen(patterns: Mapping[str, float], path: str, other: float | None) -> float | None:
    """The number of the first pattern that fits."""
    return next((value for pattern, value in patterns.items() if _fits(pattern, path)), other)


def _are_numbers(values: Iterable[Any]) -> bool:
    """True if all are numbers above 0 that a float holds."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
        for value in values
    )


def _may_be_endless(pattern: str) -> bool:
    """True if comparing a pattern may take longer than anybody waits: a repeated group, or many repetitions."""
    return _REPEATED_GROUP.search(pattern) is not None or len(_REPETITION.findall(pattern)) > _MOST_REPETITIONS


def _fits(pattern: str, path: str) -> bool:
    """True if PEFT takes a pattern for a module: it is the end of the name, or a regular expression of that."""
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", path) is not None
    except re.error:
        return path == pattern or path.endswith(f".{pattern}")
