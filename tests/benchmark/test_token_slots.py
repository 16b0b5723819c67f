"""A token trained for its slot: more of it lies there than before, and never all it could be by chance."""

import json

import pytest

from orthoplex.benchmark import token_slots as module
from orthoplex.benchmark.token_slots import TokenSlotSettings, main, token_in_slot, token_slots
from orthoplex.errors import ConfigurationError


def test_training_moves_a_token_into_its_slot_and_leaves_no_trace(pico):
    settings = TokenSlotSettings(slots=4, steps=30)
    before = pico.pipeline.text_encoder.get_input_embeddings().weight.clone()
    found = [token_in_slot(pico, settings, slot) for slot in range(4)]
    assert sum(row.before for row in found) == pytest.approx(1.0, abs=1e-4)  # the slots fill the whole width
    assert all(row.before < row.after <= 1.0 for row in found)
    assert (pico.pipeline.text_encoder.get_input_embeddings().weight == before).all() and not pico.tokens


def test_the_command_writes_every_slot(pico, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_base", lambda name: pico)
    main(["--output", str(tmp_path / "found.json"), "--class-words", "person", "--steps", "2"])
    (row,) = json.loads((tmp_path / "found.json").read_text())["class_words"]
    assert row["settings"]["class_word"] == "person" and [one["slot"] for one in row["slots"]] == list(range(16))
    assert row["settings"]["steps"] == 2


def test_means_are_over_the_slots(pico, monkeypatch):
    monkeypatch.setattr(module, "load_base", lambda name: pico)
    found = token_slots(TokenSlotSettings(slots=3, steps=1), slots=[0, 2])
    assert found["mean"]["after"] == pytest.approx(sum(row["after"] for row in found["slots"]) / 2)


@pytest.mark.parametrize("changes", [{"slots": 0}, {"steps": 0}])
def test_numbers_below_one_are_refused(changes):
    with pytest.raises(ConfigurationError, match="allowed: 1 or more"):
        TokenSlotSettings(**changes)
