"""The modules of a file: which keys belong together, and what kind of payload they are; read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from orthoplex.concepts.exchange.payloads import PAYLOADS, Form, form_of, payloads_of, split_key
from orthoplex.concepts.exchange.payloads.row import ADAPTER
from orthoplex.concepts.exchange.respelling import respelled
from orthoplex.errors import ConfigurationError
from orthoplex.files import Header

_OF_ADAPTERS = frozenset(
    part
    for row in PAYLOADS.values()
    for part, endings in row.parts.items()
    if any(ADAPTER in ending for ending in endings)
)
"""Parts whose keys may name an adapter."""


@final
@dataclass(frozen=True)
class StoredModule:
    """One payload of one module.

    Attributes:
        name: The module as the file names it, in the usual spelling.
        payload: A name in ``PAYLOADS``.
        keys: Part of the payload to its key in the file.
        form: What the shapes of the parts say.
    """

    name: str
    payload: str
    keys: Mapping[str, str]
    form: Form

    @property
    def parameter(self) -> str:
        """The parameter that is changed: ``weight`` or ``bias``."""
        return PAYLOADS[self.payload].parameter

    @property
    def is_scaled(self) -> bool:
        """True if a factor stands before its product; full differences have none."""
        return not self.payload.endswith("difference")


@final
@dataclass(frozen=True)
class StoredModules:
    """All payloads of a file, and the keys that belong to none.

    Attributes:
        modules: The payloads.
        refused: Key to the reason why it cannot be read.
        others: Keys that are no part of any payload.
    """

    modules: tuple[StoredModule, ...]
    refused: Mapping[str, str]
    others: tuple[str, ...]


def stored_modules(header: Header, keys: Iterable[str]) -> StoredModules:
    """Sort keys of a header.

    Args:
        header: The header.
        keys: The keys.
    """
    parts: dict[str, dict[str, str]] = {}  # module -> part -> key
    adapters: dict[str, dict[str, str]] = {}  # module -> adapter -> its first key
    doubled: dict[str, tuple[list[str], str]] = {}  # module -> further keys of its parts, and the reason
    refused: dict[str, str] = {}
    others: list[str] = []
    for key in keys:
        pieces = split_key(respelled(key))
        if pieces is None:
            others.append(key)
        elif pieces.part in parts.setdefault(pieces.module, {}):
            reason = f"'{key}' is the same part of the same module as '{parts[pieces.module][pieces.part]}'"
            doubled.setdefault(pieces.module, ([], reason))[0].append(key)
        else:
            parts[pieces.module][pieces.part] = key
        if pieces is not None and (pieces.adapter or pieces.part in _OF_ADAPTERS):
            adapters.setdefault(pieces.module, {}).setdefault(pieces.adapter, key)
    modules: list[StoredModule] = []
    for name, own in parts.items():
        if name in doubled:
            refused.update(dict.fromkeys([*own.values(), *doubled[name][0]], doubled[name][1]))
            continue
        try:
            _check_adapters(adapters.get(name, {}))
            modules += _payloads(name, own, header)
        except ConfigurationError as error:
            refused.update(dict.fromkeys(own.values(), str(error)))
    return StoredModules(tuple(modules), refused, tuple(others))


def _check_adapters(firsts: Mapping[str, str]) -> None:
    """Refuse parts of several adapters.

    Raises:
        ConfigurationError: If there are several, names a key of each of two.
    """
    if len(firsts) > 1:
        first, second, *_ = firsts.values()
        raise ConfigurationError(f"'{first}' and '{second}' are of two adapters; allowed is one adapter in a file")


def _payloads(name: str, keys: Mapping[str, str], header: Header) -> list[StoredModule]:
    """The payloads of one module.

    Raises:
        ConfigurationError: If parts are missing, do not belong together, or the kind is refused.
    """
    shapes = {part: header.entries[key].shape for part, key in keys.items()}
    modules = []
    for payload in payloads_of(keys.keys()):
        form = form_of(payload, shapes)
        own = {part: key for part, key in keys.items() if part in PAYLOADS[payload].parts}
        modules.append(StoredModule(name, payload, own, form))
    return modules
