"""``orthoplex bank``, and concepts of a bank in other verbs."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from orthoplex import vignette
from orthoplex.cli import app
from orthoplex.cli.bank import reserved_slot
from orthoplex.concepts.bank import Bank, add_file

RUNNER = CliRunner()


def run(*arguments: object, code: int = 0) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def bank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("bank", "init", "my bank")
    files = [vignette.concept_file(name, method="orthogonal") for name in ("anna", "otto")]
    assert "anna added: person" in run("bank", "add", "my bank", *files)
    return tmp_path / "my bank"


def test_a_bank_from_beginning_to_end(bank):
    listed = json.loads(run("bank", "list", bank, "--json"))
    assert [(entry["name"], entry["kind"]) for entry in listed] == [("anna", "person"), ("otto", "subject")]
    assert "<anna> person" in run("bank", "list", bank)
    assert "anna is there already" in run("bank", "add", bank, Bank(bank).path("anna"))
    assert "2 concepts" in run("bank", "verify", bank)
    Bank(bank).reserve("rex", "rows")
    assert json.loads(run("bank", "capacity", bank, "--json"))[0]["owners"] == {"0": "rex"}
    assert "rows: 1 slots given, unknown free (0 rex)" in run("bank", "capacity", bank)
    assert "(slot reserved)" in run("bank", "list", bank)
    Bank(bank).path("otto").unlink()
    assert "is missing; it belongs to concept otto" in run("bank", "verify", bank, code=1)
    assert json.loads(run("bank", "verify", bank, "--json", code=1))[0]["is_left_over"] is False
    (bank / "concepts" / "half").write_text("")
    assert "--clean deletes it" in run("bank", "verify", bank, code=1)
    run("bank", "verify", bank, "--clean", code=1)
    assert not (bank / "concepts" / "half").exists()
    assert "otto removed" in run("bank", "remove", bank, "otto", "rex")
    assert "no concept has a slot" in run("bank", "capacity", bank)
    assert "did you mean 'anna'" in run("bank", "remove", bank, "ana", code=2)


def test_concepts_of_a_bank_are_named_in_other_verbs(bank, tmp_path):
    run("generate", "<anna> person", "--bank", bank, "--concept", "anna@0.9", "--output", "a.png", "--steps", 1)
    assert (tmp_path / "a.png").is_file()
    message = run("generate", "a cat", "--bank", bank, "--concept", "ana", "--output", "b.png", code=2)
    assert "concept 'ana' is not in bank" in message and "did you mean 'anna'?" in message
    run(
        "merge",
        "anna@0.5",
        vignette.concept_file("bruno", method="orthogonal"),
        "--bank",
        bank,
        "--output",
        "m.safetensors",
    )
    assert (tmp_path / "m.safetensors").is_file()
    assert "allowed is the folder of a bank" in run("merge", "anna", "--bank", tmp_path, "--output", "n", code=2)


@pytest.mark.slow
def test_a_training_gets_its_slot_from_the_bank(bank, tmp_path):
    sample = next(sample for sample in vignette.sample_concepts() if sample.name == "anna")
    train = ["train", sample.folder, "--class-word", "person", "--method", "orthogonal", "--bank", bank]
    train += ["--set", "batch_size=1", "--erasure", 0, "--steps", 1]
    for number, name in enumerate(("kim", "lee")):
        assert f"{name} is in bank" in run(*train, "--name", name)
        assert Bank(bank)[name].slot == number
    assert "has a concept kim; give another name" in run(
        *train, "--name", "kim", "--output", "other.safetensors", code=2
    )
    assert "which gives the slot; give one of them" in run(*train, "--name", "max", "--slot", 3, code=2)
    run(*train, "--name", "nina", "--set", "resolution=37", code=2)
    run(*train, "--name", "nina", "--output", "nina.bin", code=2)
    run(*train, "--name", "nina", "--resume", "--overwrite", code=2)
    assert Bank(bank).reservations == ()
    assert "has a concept kim" in run(*train, "--name", "kim", "--resume", "--output", "else.safetensors", code=2)
    before = Bank(bank)["kim"]
    assert "kim is in bank" in run(*train, "--name", "kim", "--resume", "--steps", 2)
    assert Bank(bank)["kim"].slot == before.slot and Bank(bank)["kim"].content_hash != before.content_hash
    assert Bank(bank).verify() == []
    elsewhere = [tmp_path if argument is bank else argument for argument in train]
    assert "allowed is the folder of a bank" in run(*elsewhere, "--name", "tom", code=2)


def test_a_training_that_never_began_leaves_the_concept_of_its_name(tmp_path, concept_in_bank):
    bank, name = concept_in_bank
    before = bank[name]
    with pytest.raises(KeyboardInterrupt), reserved_slot(bank.folder, name, tmp_path / "none"):
        bank.reserve(name, "basis=slot, rank=4")
        raise KeyboardInterrupt
    assert bank[name] == before and bank.verify() == []
    with pytest.raises(KeyboardInterrupt), reserved_slot(bank.folder, "nina", tmp_path / "none"):
        bank.reserve("nina", "basis=slot, rank=4")
        raise KeyboardInterrupt
    assert "nina" not in [item.name for item in bank.reservations]


@pytest.fixture
def concept_in_bank(tmp_path):
    """A bank with a concept that has no slot."""
    made = Bank.create(tmp_path / "people")
    return made, add_file(made, vignette.concept_file("anna", method="lora")).name
