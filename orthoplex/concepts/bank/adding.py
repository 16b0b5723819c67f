"""Concepts and LoRA files go into a bank."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from orthoplex.adapters import slot_capacity, slot_partition
from orthoplex.concepts.any_file import is_foreign, read_concept
from orthoplex.concepts.bank.bank import Bank, file_hash
from orthoplex.concepts.bank.entry import BankEntry, StoredFile
from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.file import load_concept, save_concept
from orthoplex.errors import ConfigurationError


def add_file(bank: Bank, path: str | Path, *, base: BaseIdentity | None = None, replace: bool = False) -> BankEntry:
    """Add a concept file, or a LoRA file of another program; see ``add_concept``.

    Args:
        bank: The bank.
        path: The file.
        base: The base of a LoRA file that names none, where the bank has no concept yet.
        replace: See ``add_concept``.

    Raises:
        ConfigurationError: See ``add_concept``; or if a LoRA file names no base, and nobody else does.
        ConceptFileError: If the file cannot be read.
    """
    known = bank.base or base
    if base is not None and known is not None and known.hash != base.hash:
        raise ConfigurationError(f"bank {bank.folder} is of base {known}, and {base} is given; one base is allowed")
    if known is not None:
        return add_concept(bank, read_concept(path, known), replace=replace)
    if is_foreign(Path(path)):
        raise ConfigurationError(
            f"{path} names no base, and bank {bank.folder} has no concept yet; give the base, as in --base FOLDER"
        )
    return add_concept(bank, load_concept(path), replace=replace)


def add_concept(bank: Bank, concept: Concept, *, replace: bool = False) -> BankEntry:
    """Add a concept; it is in the bank whole, or not at all.

    Its files are written first, under a name that no other content has, and then the fact. An interrupted call leaves
    files that belong to no concept.

    Args:
        bank: The bank.
        concept: The concept; one that is there already, with the same content, is left as it is.
        replace: True lets it take the place of another concept of its name, or of itself with other words.

    Raises:
        ConfigurationError: If its base is not the bank's, another concept has its name or its slot.
        BusyError: If another process writes for long.
        OutputError: If it cannot be written.
    """
    with bank.writing():
        base, old = bank.base, bank[concept.name] if concept.name in bank else None
        if base is not None and base.hash != concept.manifest.base.hash:
            raise ConfigurationError(
                f"concept {concept.label} is of base {concept.manifest.base}, and bank {bank.folder} of {base}; one "
                "base is allowed in a bank"
            )
        entry = _described(concept, () if old is None else old.files)
        if old is not None and old.content_hash == concept.content_hash and (entry == old or not replace):
            return old
        if old is not None and not replace:
            raise ConfigurationError(
                f"bank {bank.folder} has another concept {concept.name}; give this one another name (orthoplex rename),"
                " or --replace the other"
            )
        bank.check_slot(entry)
        entry = _described(concept, _written(bank, concept))
        bank.append({"fact": "add", "entry": entry.to_json(), "base": asdict(concept.manifest.base)})
        if old is not None:
            bank.delete_files(old)
        return entry


def _written(bank: Bank, concept: Concept) -> tuple[StoredFile, ...]:
    """Write the files of a concept, and return them, the concept file first."""
    path = bank.concepts_folder / f"{concept.name}-{_file_key(concept)}.safetensors"
    manifest = save_concept(concept, path)
    names = [path.name, *([] if manifest.companion is None else [manifest.companion.file])]
    paths = [bank.concepts_folder / name for name in names]
    return tuple(StoredFile(own.name, own.stat().st_size, file_hash(own)) for own in paths)


def _file_key(concept: Concept) -> str:
    """Stands for the content of a concept and its words: no file is written over one that the ledger knows."""
    manifest = concept.manifest
    words = (manifest.kind, manifest.class_word, manifest.trigger)
    return hashlib.sha256("\n".join((concept.content_hash, *words)).encode()).hexdigest()[:16]


def _described(concept: Concept, files: tuple[StoredFile, ...]) -> BankEntry:
    manifest = concept.manifest
    shapes = {layer: (change.shape[0], change.rank, change.shape[1]) for layer, change in concept.layers.items()}
    owns = manifest.slot is not None
    return BankEntry(
        name=concept.name,
        kind=manifest.kind,
        class_word=manifest.class_word,
        trigger=manifest.trigger,
        content_hash=concept.content_hash,
        rank=max((rank for _, rank, _ in shapes.values()), default=0),
        slot=manifest.slot,
        partition=slot_partition(manifest.adapter) if owns else "",
        capacity=slot_capacity(manifest.adapter, [shape[2] for shape in shapes.values()]) if owns else None,
        files=files,
    )
