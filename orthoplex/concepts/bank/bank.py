"""A folder of concepts of one base: who is in it, who owns which slot, and whether the files are what they were."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from orthoplex.concepts.bank.entry import BankEntry, Reservation
from orthoplex.concepts.bank.ledger import Fact, Ledger, LedgerReplacedError, Place
from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.errors import CapacityError, ConfigurationError, FileFormatError, OutputError
from orthoplex.files import check_writable
from orthoplex.options import did_you_mean

_VERSION = 1
_CHUNK_BYTES = 2**20


@final
@dataclass(frozen=True)
class Partition:
    """The slots of one partition.

    Attributes:
        name: What the slots divide, in words.
        capacity: How many slots there are, as far as the concepts in them say; None if nobody knows yet.
        owners: Slot to the name of the concept that has it, or will have it.
    """

    name: str
    capacity: int | None
    owners: Mapping[int, str]

    @property
    def free(self) -> int | None:
        """The number of slots that are free; None if nobody knows."""
        return None if self.capacity is None else max(0, self.capacity - len(self.owners))


@final
@dataclass(frozen=True)
class Problem:
    """A file that is not as the ledger says.

    Attributes:
        file: Its name in the folder of concepts.
        text: What is wrong.
        is_left_over: True if it is only left over from an interrupted call, and may go.
    """

    file: str
    text: str
    is_left_over: bool = False


@final
class Bank:
    """A bank; reading needs no lock, and sees what was whole when it began.

    A slot belongs to one concept of a partition at a time. It is free again when that concept is removed.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a bank.

        Args:
            folder: Its folder.

        Raises:
            FileFormatError: If the folder holds no bank, its ledger is damaged, or a later version wrote it.
        """
        self.folder = Path(folder)
        self._ledger = Ledger(self.folder)
        self._place = Place()
        self._reading = threading.Lock()
        self._base: BaseIdentity | None = None
        self._entries: dict[str, BankEntry] = {}
        self._reservations: dict[str, Reservation] = {}
        self._refresh()

    @staticmethod
    def create(folder: str | Path, base: BaseIdentity | None = None) -> Bank:
        """Make a bank in a new or empty folder.

        Args:
            folder: The folder.
            base: The base of its concepts; None takes that of the first.

        Raises:
            ConfigurationError: If the folder holds something.
            OutputError: If it cannot be written.
        """
        path = Path(folder)
        if path.exists() and not _is_empty(path):
            raise ConfigurationError(f"bank folder {path} exists; allowed is a new or an empty folder")
        check_writable(path / "ledger.jsonl")
        try:
            (path / "concepts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"bank folder {path} cannot be made: {error.strerror}") from error
        ledger = Ledger(path)
        with ledger.locked():
            if ledger.path.exists() and not _is_empty_ledger(ledger.path):
                raise ConfigurationError(f"bank folder {path} became a bank meanwhile; allowed is opening it")
            ledger.append({"fact": "bank", "version": _VERSION, "base": None if base is None else asdict(base)})
        return Bank(path)

    @property
    def base(self) -> BaseIdentity | None:
        """The base of all concepts; None before the first."""
        self._refresh()
        return self._base

    @property
    def concepts_folder(self) -> Path:
        """Where the files are."""
        return self.folder / "concepts"

    def __iter__(self) -> Iterator[BankEntry]:
        """Iterate over all concepts by name; no file of theirs is opened."""
        self._refresh()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def __len__(self) -> int:
        self._refresh()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        self._refresh()
        return name in self._entries

    def __getitem__(self, name: str) -> BankEntry:
        """Return a concept's entry.

        Raises:
            ConfigurationError: If there is none; names the nearest.
        """
        self._refresh()
        if name not in self._entries:
            raise ConfigurationError(
                f"concept {name!r} is not in bank {self.folder}, which has {len(self._entries)} concepts; "
                f"{did_you_mean(name, list(self._entries))}"
            )
        return self._entries[name]

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """Slots of concepts that are not there yet, by name."""
        self._refresh()
        return tuple(self._reservations[name] for name in sorted(self._reservations))

    def path(self, name: str) -> Path:
        """Return the file of a concept.

        Raises:
            ConfigurationError: See ``__getitem__``.
        """
        return self.concepts_folder / self[name].files[0].name

    def partitions(self) -> tuple[Partition, ...]:
        """Return all partitions that have slots, by name."""
        self._refresh()
        holders = [*self._entries.values(), *self._reservations.values()]
        names = sorted({item.partition for item in holders if item.slot is not None})
        return tuple(Partition(name, self._capacity(name), self._owners(name)) for name in names)

    def reserve(self, name: str, partition: str, *, capacity: int | None = None) -> int:
        """Give the lowest free slot to a concept that will be trained; the same one if it has one already.

        Args:
            name: The concept's name.
            partition: What slots divide; see ``adapters.slot_partition``.
            capacity: How many slots there are, if the caller knows.

        Raises:
            CapacityError: If no slot is free.
            ConfigurationError: If the concept has a slot of another partition.
            BusyError: See ``Ledger.locked``.
            OutputError: If the ledger cannot be written.
        """
        with self.writing():
            own = self._reservations.get(name) or self._entries.get(name)
            if own is not None and own.slot is not None:
                if own.partition != partition:
                    raise ConfigurationError(
                        f"concept {name} has slot {own.slot} of {own.partition} in bank {self.folder}, and {partition} "
                        f"is asked for; orthoplex bank remove {self.folder} {name} frees it"
                    )
                return own.slot
            owners, known = self._owners(partition), self._capacity(partition)
            limits = [limit for limit in (known, capacity) if limit is not None]
            slot = next(number for number in range(len(owners) + 1) if number not in owners)
            if limits and slot >= min(limits):
                raise CapacityError(
                    f"bank {self.folder}: all {min(limits)} slots of {partition} are given; allowed is removing a "
                    "concept, or a lower rank"
                )
            self.append({"fact": "reserve", **asdict(Reservation(name, slot, partition))})
            return slot

    def remove(self, name: str) -> None:
        """Take a concept, or a reservation, out; its slot is free afterwards, and its files are gone.

        Raises:
            ConfigurationError: If there is neither; names the nearest.
            BusyError: See ``Ledger.locked``.
            OutputError: If the ledger cannot be written.
        """
        with self.writing():
            if name not in self._reservations:
                _ = self[name]
            entry = self._entries.get(name)
            self.append({"fact": "remove", "name": name})
            if entry is not None:
                self.delete_files(entry)

    def verify(self) -> list[Problem]:
        """Compare all files with the ledger, byte by byte."""
        problems = []
        for entry in self:
            for file in entry.files:
                path = self.concepts_folder / file.name
                if not path.is_file():
                    problems.append(Problem(file.name, f"is missing; it belongs to concept {entry.name}"))
                elif file_hash(path) != file.sha256:
                    problems.append(Problem(file.name, f"holds other bytes than when concept {entry.name} was added"))
        return problems + [
            Problem(path.name, "belongs to no concept", is_left_over=True) for path in self.left_over_files()
        ]

    def left_over_files(self) -> list[Path]:
        """Return the files that belong to no concept: interrupted calls leave them."""
        owned = {file.name for entry in self for file in entry.files}
        if not self.concepts_folder.is_dir():
            return []
        return [path for path in sorted(self.concepts_folder.iterdir()) if path.is_file() and path.name not in owned]

    def clean(self) -> list[Path]:
        """Delete the files that belong to no concept, and return them.

        Raises:
            BusyError: See ``Ledger.locked``.
            OutputError: If one cannot be deleted.
        """
        with self.writing():
            paths = self.left_over_files()
            for path in paths:
                _delete(path)
            return paths

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, nobody else writes, and this bank knows all that was written.

        Raises:
            BusyError: See ``Ledger.locked``.
            OutputError: See ``Ledger.locked``.
        """
        with self._ledger.locked():
            self._refresh()
            yield

    def append(self, fact: Fact) -> None:
        """Write a fact; within ``writing()``.

        Raises:
            OutputError: If it cannot be written.
        """
        self._ledger.append(fact, self._place)
        self._refresh()

    def delete_files(self, entry: BankEntry) -> None:
        """Delete the files of a concept that is not in the bank any more, but for those that another one has."""
        owned = {file.name for other in self._entries.values() for file in other.files}
        for file in entry.files:
            if file.name not in owned:
                _delete(self.concepts_folder / file.name)

    def check_slot(self, entry: BankEntry) -> None:
        """Refuse a concept whose slot another one has; within ``writing()``.

        Raises:
            ConfigurationError: Names both, and the cure.
        """
        if entry.slot is None:
            return
        owner = self._owners(entry.partition).get(entry.slot, entry.name)
        if owner != entry.name:
            raise ConfigurationError(
                f"slot {entry.slot} of {entry.partition} belongs to concept {owner} in bank {self.folder}, so that "
                f"{entry.name} would meet it; train it with --bank {self.folder}, which gives it a free slot"
            )

    def _owners(self, partition: str) -> dict[int, str]:
        holders = [*self._entries.values(), *self._reservations.values()]
        return {item.slot: item.name for item in holders if item.slot is not None and item.partition == partition}

    def _capacity(self, partition: str) -> int | None:
        known = [entry.capacity for entry in self._entries.values() if entry.partition == partition]
        return min((capacity for capacity in known if capacity is not None), default=None)

    def _refresh(self) -> None:
        with self._reading:
            try:
                facts, place = self._ledger.read(self._place)
            except LedgerReplacedError:  # the folder was made anew, or its ledger restored from a copy
                self._base = None
                self._entries.clear()
                self._reservations.clear()
                facts, place = self._ledger.read()
            for fact in facts:
                try:
                    self._take(fact)
                except (KeyError, TypeError) as error:
                    raise FileFormatError(
                        f"{self._ledger.path}: fact {fact} is not one that this version knows"
                    ) from error
            self._place = place
        if not place.end:
            raise FileFormatError(f"{self._ledger.path} is empty; allowed is making the bank again, as by bank init")

    def _take(self, fact: Fact) -> None:
        match fact["fact"]:
            case "bank":
                if fact["version"] > _VERSION:
                    raise FileFormatError(
                        f"{self._ledger.path} is of version {fact['version']}; allowed are versions up to {_VERSION}"
                    )
                self._base = None if fact["base"] is None else BaseIdentity(**fact["base"])
            case "reserve":
                reservation = Reservation(fact["name"], fact["slot"], fact["partition"])
                self._reservations[reservation.name] = reservation
            case "add":
                entry = BankEntry.from_json(fact["entry"])
                self._entries[entry.name] = entry
                self._reservations.pop(entry.name, None)
                self._base = self._base or BaseIdentity(**fact["base"])
            case "remove":
                self._entries.pop(fact["name"], None)
                self._reservations.pop(fact["name"], None)
            case _:
                raise KeyError(fact["fact"])


def _is_empty(folder: Path) -> bool:
    """True for a folder with nothing in it but what an interrupted ``create`` leaves."""
    if not folder.is_dir():
        return False
    begun = {"concepts", "ledger.lock"}
    concepts = folder / "concepts"
    is_begun = all(path.name in begun or _is_empty_ledger(path) for path in folder.iterdir())
    return is_begun and not (concepts.exists() and (not concepts.is_dir() or any(concepts.iterdir())))


def _is_empty_ledger(path: Path) -> bool:
    return path.name == "ledger.jsonl" and path.is_file() and not path.stat().st_size


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be deleted: {error.strerror}") from error
