"""Banks: what they say is what is there, whoever writes and whenever somebody is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import LowRank, slot_capacity
from orthoplex.concepts import BaseIdentity, Concept, Manifest, load_concept, save_concept
from orthoplex.concepts.bank import Bank, BankCache, CacheStats, Problem, add_concept, add_file
from orthoplex.concepts.bank.entry import BankEntry, StoredFile
from orthoplex.concepts.bank.ledger import Ledger
from orthoplex.errors import CapacityError, ConceptFileError, ConfigurationError, FileFormatError, OutputError

BASE = BaseIdentity(family="sd1", hash="ab" * 32, name="base")
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
ADAPTER = {"method": "orthogonal", "basis": "slot", "rank": 4}
PARTITION = "basis=slot, rank=4"


def concept(name: str, slot: int | None = None, seed: int = 0, base: BaseIdentity = BASE) -> Concept:
    generator = torch.Generator().manual_seed(seed)
    change = LowRank(torch.randn(8, 4, generator=generator), torch.randn(4, 16, generator=generator))
    adapter = {} if slot is None else {**ADAPTER, "slot": slot}
    manifest = Manifest(
        name=name, kind="person", class_word="person", trigger=f"<{name}> person", base=base, method="orthogonal",
        slot=slot, adapter=adapter,
    )  # fmt: skip
    return Concept(manifest, {LAYER: change})


@pytest.fixture
def bank(tmp_path) -> Bank:
    return Bank.create(tmp_path / "bank")


def test_a_concept_that_is_added_is_there_whole(bank, tmp_path):
    assert len(bank) == 0 and bank.base is None and bank.partitions() == ()
    entry = add_concept(bank, concept("anna", 1))
    assert (entry.slot, entry.partition, entry.capacity, entry.rank) == (1, PARTITION, 4, 4)
    other = Bank(bank.folder)
    assert list(other) == [entry] and other.base == BASE and "anna" in other and other["anna"] == entry
    assert load_concept(other.path("anna")).content_hash == entry.content_hash == concept("anna", 1).content_hash
    assert other.verify() == [] and other.left_over_files() == []
    assert BankEntry.from_json(entry.to_json()) == entry
    save_concept(concept("rex", 0, seed=1), tmp_path / "rex.safetensors")
    assert add_file(bank, tmp_path / "rex.safetensors").slot == 0
    assert [item.name for item in other] == ["anna", "rex"]  # it sees what others write


def test_slots_belong_to_one_concept_at_a_time(bank):
    assert [bank.reserve(name, PARTITION) for name in ("anna", "rex", "anna")] == [0, 1, 0]
    assert bank.reserve("tom", "another partition") == 0
    add_concept(bank, concept("anna", 0))
    assert [item.name for item in bank.reservations] == ["rex", "tom"]
    with pytest.raises(
        ConfigurationError, match=f"slot 1 of {PARTITION} belongs to concept rex in bank .*train it with"
    ):
        add_concept(bank, concept("lake", 1))
    (first, *_) = [item for item in bank.partitions() if item.name == PARTITION]
    assert (first.capacity, dict(first.owners), first.free) == (4, {0: "anna", 1: "rex"}, 2)
    bank.remove("rex")
    assert bank.reserve("lake", PARTITION) == 1
    with pytest.raises(
        ConfigurationError, match="concept lake has slot 1 of basis=slot, rank=4 .* and rows is asked for"
    ):
        bank.reserve("lake", "rows")
    assert [bank.reserve(name, PARTITION) for name in ("b", "c")] == [2, 3]
    with pytest.raises(CapacityError, match="all 4 slots of basis=slot, rank=4 are given"):
        bank.reserve("d", PARTITION)
    with pytest.raises(CapacityError, match="all 0 slots"):
        bank.reserve("d", "elsewhere", capacity=0)


def test_what_does_not_fit_is_refused_and_nothing_changes(bank, tmp_path):
    add_concept(bank, concept("anna", 0))
    before = (bank.folder / "ledger.jsonl").read_bytes()
    assert add_concept(bank, concept("anna", 0)) == bank["anna"]
    with pytest.raises(ConfigurationError, match="has another concept anna; give this one another name"):
        add_concept(bank, concept("anna", 0, seed=1))
    with pytest.raises(ConfigurationError, match="concept rex is of base .*; one base is allowed in a bank"):
        add_concept(bank, concept("rex", base=replace(BASE, hash="cd" * 32)))
    with pytest.raises(
        ConfigurationError, match="concept 'ann' is not in bank .*, which has 1 concepts; did you mean 'an"
    ):
        bank["ann"]
    with pytest.raises(ConfigurationError, match="concept 'tom' is not in bank"):
        bank.remove("tom")
    with pytest.raises(ConfigurationError, match="bank folder .* exists; allowed is a new or an empty folder"):
        Bank.create(bank.folder)
    with pytest.raises(FileFormatError, match="allowed is the folder of a bank"):
        Bank(tmp_path / "nowhere")
    assert (bank.folder / "ledger.jsonl").read_bytes() == before and bank.verify() == []


def test_another_version_takes_the_place_of_the_first(bank):
    old = add_concept(bank, concept("anna", 0))
    new = add_concept(bank, concept("anna", 0, seed=1), replace=True)
    assert bank["anna"] == new != old and bank.verify() == [] and len(list(bank.concepts_folder.iterdir())) == 1
    bank.remove("anna")
    assert len(bank) == 0 and list(bank.concepts_folder.iterdir()) == []


def test_files_that_are_not_what_they_were_are_named(bank):
    for seed, name in enumerate(("anna", "rex")):
        add_concept(bank, concept(name, seed=seed))
    first, second = (bank.path(name) for name in ("anna", "rex"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    second.unlink()
    (bank.concepts_folder / "half.safetensors").write_bytes(b"")
    assert bank.verify() == [
        Problem(first.name, "holds other bytes than when concept anna was added"),
        Problem(second.name, "is missing; it belongs to concept rex"),
        Problem("half.safetensors", "belongs to no concept", is_left_over=True),
    ]
    assert [path.name for path in bank.clean()] == ["half.safetensors"] and len(bank.verify()) == 2


@pytest.mark.parametrize("point", ["write", "append", "delete"])
def test_whatever_is_interrupted_leaves_nothing_or_the_whole_concept(bank, monkeypatch, point):
    add_concept(bank, concept("anna", 0))

    def fail(*values, **named):
        raise KeyboardInterrupt

    places = {
        "write": ("orthoplex.concepts.bank.adding.file_hash", fail),
        "append": ("orthoplex.concepts.bank.ledger.Ledger.append", fail),
        "delete": ("orthoplex.concepts.bank.bank._delete", fail),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*places[point])
        with pytest.raises(KeyboardInterrupt):
            add_concept(bank, concept("anna", 0, seed=1), replace=True)
    names = {entry.content_hash for entry in Bank(bank.folder)}
    assert names == {concept("anna", 0, seed=1 if point == "delete" else 0).content_hash}
    assert all(problem.is_left_over for problem in bank.verify())
    bank.clean()
    assert bank.verify() == []


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_the_beginning_of_a_line_is_no_fact_and_is_cut_off(bank, cut):
    add_concept(bank, concept("anna", 0))
    path, whole = bank.folder / "ledger.jsonl", (bank.folder / "ledger.jsonl").read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-cut])
    assert [entry.name for entry in Bank(bank.folder)] == ["anna"]
    assert Bank(bank.folder).reserve("rex", PARTITION) == 1
    assert path.read_bytes().startswith(whole) and len(Ledger(bank.folder).read()[0]) == 3
    damaged = bytearray(whole)
    damaged[3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FileFormatError, match="line at byte 0 is damaged"):
        Bank(bank.folder)


def test_ledgers_of_later_versions_are_refused(bank):
    ledger = Ledger(bank.folder)
    ledger.append({"fact": "bank", "version": 2, "base": None})
    with pytest.raises(FileFormatError, match="is of version 2; allowed are versions up to 1"):
        Bank(bank.folder)
    other = bank.folder / "other"
    other.mkdir()
    Ledger(other).append({"fact": "dance"})
    with pytest.raises(FileFormatError, match="is not one that this version knows"):
        Bank(other)


def test_a_disk_that_is_full_leaves_the_ledger_as_it_was(bank, monkeypatch):
    before = (bank.folder / "ledger.jsonl").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="ledger.jsonl cannot be written: No space left on device"):
        bank.reserve("anna", PARTITION)
    assert (bank.folder / "ledger.jsonl").read_bytes() == before and Bank(bank.folder).reservations == ()


def test_threads_that_reserve_get_slots_of_their_own(bank):
    slots: list[int] = []

    def reserve(number: int) -> None:
        slots.append(Bank(bank.folder).reserve(f"concept-{number}", PARTITION))

    threads = [threading.Thread(target=reserve, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slots) == list(range(8))


@pytest.mark.slow
def test_a_writer_that_is_killed_gives_no_slot_twice(bank):
    code = (
        "import sys; from orthoplex.concepts.bank import Bank\n"
        "bank = Bank(sys.argv[1])\n"
        f"for i in range(10**6): print(bank.reserve(f'{{sys.argv[2]}}-{{i}}', '{PARTITION}'), flush=True)"
    ).replace("\\\n", "\n")
    given: list[int] = []
    for number in range(3):
        command = [sys.executable, "-c", code, str(bank.folder), f"a{number}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
            first = killed.stdout.readline()
            time.sleep(0.05 * (number + 1))
            os.kill(killed.pid, signal.SIGKILL)
            given += [int(first), *map(int, killed.stdout.read().split())]
        given.append(bank.reserve(f"b{number}", PARTITION))
    assert len(given) == len(set(given)) > 6
    assert {item.slot for item in Bank(bank.folder).reservations} >= set(given)


def test_ten_thousand_concepts_are_listed_without_opening_one(bank):
    entry = BankEntry(
        "anna", "person", "person", "<anna>", "0" * 64, 4, None, "", None, (StoredFile("a", 1, "0" * 64),)
    )
    with bank.writing():
        for number in range(100):
            bank.append(
                {
                    "fact": "add",
                    "entry": replace(entry, name=f"c{number}").to_json(),
                    "base": {"family": "sd1", "hash": "0", "name": "b"},
                }
            )
    assert len(list(Bank(bank.folder))) == 100  # none of whose files is there


def test_a_cache_holds_what_was_used_last(bank):
    for seed, name in enumerate(("anna", "rex", "tom")):
        add_concept(bank, concept(name, seed=seed))
    size = 4 * (8 * 4 + 4 * 16)
    cache = BankCache(bank, budget_bytes=2 * size)
    anna = cache.load("anna")
    assert cache.load("anna") is anna and cache.stats == CacheStats(1, 1, size)
    rex = cache.load("rex")
    assert cache.load("anna") is anna and cache.stats.num_bytes == 2 * size
    cache.load("tom")
    assert cache.load("anna") is anna and cache.load("rex") is not rex
    assert cache.stats == CacheStats(4 - 1, 4, 2 * size)
    small = BankCache(bank, budget_bytes=size - 1)
    assert small.load("anna") is not small.load("anna") and small.stats == CacheStats(0, 2, 0)
    cache.clear()
    assert cache.stats.num_bytes == 0
    with pytest.raises(ConfigurationError, match="budget_bytes is -1"):
        BankCache(bank, budget_bytes=-1)


def test_a_cache_tells_concepts_of_the_same_content_apart(bank):
    for name in ("anna", "rex"):
        add_concept(bank, concept(name))
    cache = BankCache(bank)
    assert [cache.load(name).name for name in ("anna", "rex", "anna")] == ["anna", "rex", "anna"]
    assert bank["anna"].content_hash == bank["rex"].content_hash and cache.stats.misses == 2


def test_a_cache_refuses_content_that_is_not_the_ledgers(bank):
    add_concept(bank, concept("anna"))
    save_concept(concept("anna", seed=5), bank.path("anna"))
    with pytest.raises(ConceptFileError, match="the bank's ledger says"):
        BankCache(bank).load("anna")


def test_threads_that_ask_for_one_concept_read_it_once(bank, monkeypatch):
    add_concept(bank, concept("anna"))
    reads = []
    monkeypatch.setattr(
        "orthoplex.concepts.bank.bank_cache.load_concept",
        lambda path: reads.append(path) or time.sleep(0.05) or load_concept(path),
    )
    cache, seen = BankCache(bank), []
    threads = [threading.Thread(target=lambda: seen.append(cache.load("anna"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and all(item is seen[0] for item in seen) and len(seen) == 4


@pytest.mark.parametrize(
    ("adapter", "widths", "expected"),
    [
        (ADAPTER, [16, 32], 4),
        ({**ADAPTER, "basis": "half"}, [16], (16 - 2) // 2),
        ({**ADAPTER, "basis": "random"}, [16], None),
        ({"method": "blockwise", "slots": 5, "rank": 2}, [16], 5),
        ({"method": "orthogonal", "basis": "slot", "rank": "proportional", "slots": 8}, [16, 64], 8),
        ({"method": "orthogonal", "rank": -1}, [16], None),
        (ADAPTER, [], None),
    ],
)
def test_capacity_is_that_of_the_narrowest_layer(adapter, widths, expected):
    assert slot_capacity(adapter, widths) == expected
