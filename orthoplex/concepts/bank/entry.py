"""What a bank says of a concept, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class StoredFile:
    """A file of a concept.

    Attributes:
        name: Its name in the bank's folder of concepts.
        num_bytes: Its size.
        sha256: The hash of its bytes (hex).
    """

    name: str
    num_bytes: int
    sha256: str


@final
@dataclass(frozen=True)
class BankEntry:
    """A concept in a bank.

    Attributes:
        name: The name by which it is asked for.
        kind: Its kind.
        class_word: The ordinary word for what it is.
        trigger: What prompts say.
        content_hash: SHA-256 (hex) of its content.
        rank: The largest rank of any layer.
        slot: The slot it owns, or None.
        partition: What its slot divides, in words; see ``adapters.slot_partition``.
        capacity: The slots of that partition as far as its layers say, or None.
        files: Its files, the concept file first.
    """

    name: str
    kind: str
    class_word: str
    trigger: str
    content_hash: str
    rank: int
    slot: int | None
    partition: str
    capacity: int | None
    files: tuple[StoredFile, ...]

    @property
    def num_bytes(self) -> int:
        """The size of all files."""
        return sum(file.num_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "files": [dict(vars(file)) for file in self.files]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> BankEntry:
        """Return the entry of plain JSON values.

        Raises:
            KeyError: If a value is missing.
            TypeError: If there are others.
        """
        files = tuple([StoredFile(**file) for file in values["files"]])
        return BankEntry(**{**values, "files": files})


@final
@dataclass(frozen=True)
class Reservation:
    """A slot that is given to a concept before it is trained.

    Attributes:
        name: The name that the concept will have.
        slot: The slot.
        partition: See ``BankEntry``.
    """

    name: str
    slot: int
    partition: str
