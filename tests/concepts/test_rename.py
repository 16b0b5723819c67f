"""A concept under another name."""

from dataclasses import replace

import pytest
import torch

from orthoplex.concepts import load_concept, renamed, save_concept
from orthoplex.errors import ConfigurationError
from orthoplex.files import read_header
from orthoplex.merging import merge
from tests.pico import make_concept, tokens_of


@pytest.fixture
def concept(pico):
    return make_concept(pico, "anna")


def test_name_trigger_tokens_and_hash_follow_and_the_rest_stays(concept, tmp_path):
    many = {f"<anna>_{i}" if i else "<anna>": torch.full((24,), i + 1.0) for i in range(12)}
    concept = replace(concept, tokens=tokens_of(many))
    manifest = save_concept(concept, tmp_path / "anna.safetensors")
    after = save_concept(renamed(load_concept(tmp_path / "anna.safetensors"), "bob-2"), tmp_path / "bob.safetensors")
    again = load_concept(tmp_path / "bob.safetensors")
    assert (again.name, again.manifest.trigger) == ("bob-2", manifest.trigger.replace("anna", "bob-2"))
    assert {token: item.vectors["text_encoder"][0].item() for token, item in again.tokens.items()} == {
        f"<bob-2>_{i}" if i else "<bob-2>": i + 1.0 for i in range(12)
    }
    assert all(torch.equal(again.layers[name].up, part.up) for name, part in concept.layers.items())
    same = {"name": "x", "trigger": "", "tokens": manifest.tokens, "numbers": {}, "content_hash": ""}
    assert replace(after, **same) == replace(manifest, **same) and after.content_hash != manifest.content_hash
    metadata = read_header(tmp_path / "bob.safetensors").metadata
    assert metadata["modelspec.title"] == "bob-2" and "<bob-2>" in metadata["modelspec.trigger_phrase"]


def test_there_and_back_is_the_same_file(concept, tmp_path):
    save_concept(concept, tmp_path / "a.safetensors")
    save_concept(renamed(renamed(load_concept(tmp_path / "a.safetensors"), "b"), "anna"), tmp_path / "c.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [("anna", "concept anna has the name 'anna' already; allowed is another one"), ("Bob", "'Bob' is not allowed")],
)
def test_names_that_cannot_be_are_refused(concept, name, message):
    with pytest.raises(ConfigurationError, match=message):
        renamed(concept, name)


def test_two_of_one_name_are_merged_after_one_is_renamed(pico, concept, tmp_path):
    other = make_concept(pico, "anna", seed=5)
    path = tmp_path / "their anna.safetensors"
    save_concept(other, path)
    theirs = load_concept(path)
    with pytest.raises(ConfigurationError) as error:
        merge([(concept, 1.0), (theirs, 1.0)], algorithm="sum")
    command = "orthoplex rename '{}' anna-2 --output anna-2.safetensors"
    assert command.format(path) in str(error.value) or command.replace("'{}'", "FILE") in str(error.value)
    merged = merge([(concept, 1.0), (renamed(theirs, "anna-2"), 1.0)], algorithm="sum")
    assert merged.recipe.names == ("anna", "anna-2") and {"<anna>", "<anna-2>"} <= merged.tokens.keys()


def test_a_manifest_says_what_its_thumbnail_is(concept):
    manifest = concept.manifest
    assert replace(manifest, thumbnail="").picture == "no picture"
    assert replace(manifest, thumbnail="x").picture == "a small training picture"
    generated = replace(manifest, thumbnail="x", training={"thumbnail": "generated"})
    assert generated.picture == "a small generated picture"
