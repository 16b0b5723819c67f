"""The modules of a file: which keys belong together, and what kind of payload they are; read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from orthoplex.concepts.exchange.payloads import PAYLOADS, Form, form_of, payloads_of, split_key
from orthoplex.concepts.exchange.respelling import respelled
from orthoplex.errors import ConfigurationError
from orthoplex.files import Header


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
    refused: dict[str, str] = {}
    others: list[str] = []
    for key in keys:
        pieces = split_key(respelled(key))
        if pieces is None:
            others.append(key)
        elif pieces.part in parts.setdefault(pieces.module, {}):
            refused[key] = f"is the same part of the same module as '{parts[pieces.module][pieces.part]}'"
        else:
            parts[pieces.module][pieces.part] = key
    modules: list[StoredModule] = []
    for name, own in parts.items():
        try:
            modules += _payloads(name, own, header)
        except ConfigurationError as error:
            refused.update(dict.fromkeys(own.values(), str(error)))
    return StoredModules(tuple(modules), refused, tuple(others))


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
