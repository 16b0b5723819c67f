"""Banks that are damaged, replaced, or written by others meanwhile."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import pytest

from orthoplex.concepts import load_concept
from orthoplex.concepts.bank import Bank, BankCache, add_concept, add_file
from orthoplex.concepts.bank import bank_cache as cache_module
from orthoplex.errors import ConceptFileError, ConfigurationError, FileFormatError
from tests.concepts.test_bank import BASE, PARTITION, concept
from tests.concepts.test_bank import bank as bank


def test_a_whole_line_that_is_damaged_is_refused_even_as_the_last(bank):
    add_concept(bank, concept("anna", 0))
    add_concept(bank, concept("rex", 1, seed=1))
    path, files = bank.folder / "ledger.jsonl", sorted((bank.folder / "concepts").iterdir())
    damaged = bytearray(path.read_bytes())
    damaged[-40] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FileFormatError, match="line at byte .* is damaged"):
        Bank(bank.folder)
    with pytest.raises(FileFormatError, match="is damaged"):
        bank.clean() if Bank(bank.folder) else None
    assert sorted((bank.folder / "concepts").iterdir()) == files and path.read_bytes() == damaged


@pytest.mark.parametrize("how", ["made anew", "restored from a copy", "another of the same length"])
def test_a_bank_that_was_replaced_is_read_anew(bank, how, tmp_path):
    add_concept(bank, concept("anna", 0))
    copy = (bank.folder / "ledger.jsonl").read_bytes()
    add_concept(bank, concept("rex", 1, seed=1))
    if how == "made anew":
        shutil.rmtree(bank.folder)
        Bank.create(bank.folder)
        expected = []
    elif how == "restored from a copy":
        (bank.folder / "ledger.jsonl").write_bytes(copy)
        expected = ["anna"]
    else:
        other = Bank.create(tmp_path / "other")
        add_concept(other, concept("nina", 0))
        add_concept(other, concept("tom", 1, seed=1))
        (bank.folder / "ledger.jsonl").write_bytes((other.folder / "ledger.jsonl").read_bytes())
        expected = ["nina", "tom"]
    assert [entry.name for entry in bank] == expected
    slot = bank.reserve("new", PARTITION)
    assert slot == len(expected) and b"\0" not in (bank.folder / "ledger.jsonl").read_bytes()
    assert [(item.name, item.slot) for item in Bank(bank.folder).reservations] == [("new", slot)]


def test_a_concept_that_another_replaces_meanwhile_is_loaded_anew(bank, monkeypatch):
    add_concept(bank, concept("anna", 0))
    calls = []

    def load(path):
        calls.append(path)
        if len(calls) == 1:
            add_concept(Bank(bank.folder), concept("anna", 0, seed=1), replace=True)
        return load_concept(path)

    monkeypatch.setattr(cache_module, "load_concept", load)
    cache = BankCache(bank)
    assert cache.load("anna").content_hash == concept("anna", 0, seed=1).content_hash and len(calls) == 2
    bank.path("anna").unlink()
    cache.clear()
    with pytest.raises(ConceptFileError):
        cache.load("anna")
    for number in range(3):
        with pytest.raises(ConfigurationError):
            cache.load(f"nobody-{number}")
    assert list(cache._reading) == ["anna"]


def interrupted(self, fact):
    raise KeyboardInterrupt


def test_the_same_content_with_other_words_takes_its_place_if_asked(bank, monkeypatch):
    add_concept(bank, concept("anna", 0))
    other = concept("anna", 0)
    other = replace(other, manifest=replace(other.manifest, class_word="woman", trigger="<anna> woman"))
    assert add_concept(bank, other).class_word == "person"
    cache = BankCache(bank)
    assert cache.load("anna").manifest.class_word == "person"
    with monkeypatch.context() as patch:
        patch.setattr(Bank, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add_concept(bank, other, replace=True)
    assert [problem.is_left_over for problem in bank.verify()] == [True] and bank.clean()
    assert add_concept(bank, other, replace=True).class_word == "woman"
    assert cache.load("anna").manifest.class_word == "woman"
    assert bank.verify() == [] and load_concept(bank.path("anna")).manifest.class_word == "woman"
    assert Bank(bank.folder)["anna"].trigger == "<anna> woman"


def test_a_base_that_is_not_the_banks_is_refused(bank, tmp_path):
    add_concept(bank, concept("anna", 0))
    other = replace(BASE, hash="cd" * 32)
    with pytest.raises(ConfigurationError, match="bank .* is of base .*, and .* is given; one base is allowed"):
        add_file(bank, bank.path("anna"), base=other)
    add_file(bank, bank.path("anna"), base=BASE)


def test_more_slots_than_there_are_leave_none_free(bank):
    for number in range(6):
        bank.reserve(f"n{number}", PARTITION)
    add_concept(bank, concept("n0", 0))
    assert bank.partitions()[0].capacity == 4 and bank.partitions()[0].free == 0


def test_a_missing_folder_of_concepts_is_named_file_by_file(bank):
    assert bank.verify() == []
    (bank.folder / "concepts").rmdir()
    assert Bank(bank.folder).verify() == []
    add_concept(bank, concept("anna", 0))
    shutil.rmtree(bank.folder / "concepts")
    assert [problem.text for problem in bank.verify()] == ["is missing; it belongs to concept anna"]
    assert bank.clean() == []


def test_a_bank_that_was_begun_is_made_and_one_that_is_there_is_not_made_again(tmp_path):
    begun = tmp_path / "begun"
    (begun / "concepts").mkdir(parents=True)
    (begun / "ledger.lock").touch()
    (begun / "ledger.jsonl").touch()
    with pytest.raises(FileFormatError, match="ledger.jsonl is empty; allowed is making the bank again"):
        Bank(begun)
    assert len(Bank.create(begun, BASE)) == 0
    with pytest.raises(ConfigurationError, match="exists; allowed is a new or an empty folder"):
        Bank.create(begun)
    (tmp_path / "own" / "concepts").mkdir(parents=True)
    (tmp_path / "own" / "concepts" / "mine.txt").touch()
    with pytest.raises(ConfigurationError, match="exists"):
        Bank.create(tmp_path / "own")


def test_two_who_make_a_bank_at_once_make_one(tmp_path):
    results = []

    def make(base) -> None:
        try:
            results.append(Bank.create(tmp_path / "bank", base))
        except ConfigurationError as error:
            results.append(error)

    threads = [threading.Thread(target=make, args=(replace(BASE, name=str(i)),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(item, Bank) for item in results) == 1
    assert (tmp_path / "bank" / "ledger.jsonl").read_bytes().count(b'"fact":"bank"') == 1
