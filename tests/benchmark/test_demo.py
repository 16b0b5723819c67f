"""The demo on a pico pipeline: trains, merges, pictures, measures, writes its page; the second run only writes."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from orthoplex.benchmark import DemoMaterial, DemoSettings, PictureSettings, run_demo
from orthoplex.benchmark.demo import training_of
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.benchmark.sources import training_folder
from orthoplex.benchmark.stand import combine_prompts
from orthoplex.concepts import read_manifest
from orthoplex.errors import ConceptFileError, ConfigurationError
from orthoplex.models import load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train

SETTINGS = DemoSettings(
    live=("anna",),
    combinations=("{person} in {subject}", "{person} in {scene}"),
    pictures=PictureSettings(num_images=2, num_inference_steps=1),
    num_combined=1,
    encoder=EncoderSettings(layer="block-3", picture_size=32),
)


@pytest.fixture(scope="module")
def material(pico_folder, sources, tmp_path_factory):
    """Concept files of both methods, as if they were shipped."""
    folder = tmp_path_factory.mktemp("shipped")
    base = load_base(pico_folder)
    for slot, source in enumerate(sources):
        dataset = ConceptDataset.from_folder(
            training_folder(source, folder),
            resolution=32,
            token=source.token,
            class_word=source.class_word,
            kind=source.kind,
        )
        for method in ("orthogonal", "lora"):
            config = TrainingConfig(
                method=method, slot=slot, rank=2, steps=2, batch_size=2, sample_every=0, layers="cross-attention-kv"
            )
            for _ in train(base, dataset, config, output=folder / method / f"{source.name}.safetensors"):
                pass
    return DemoMaterial(str(pico_folder), 32, sources, lambda name, method: folder / method / f"{name}.safetensors")


class Page(HTMLParser):
    """Collects what a page shows."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.text, self.depth = [], "", 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.depth += tag not in ("img", "meta", "br", "!doctype")
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        self.depth -= 1

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def shown(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, list(run_demo(folder / "demo", work=folder / "work", settings=SETTINGS, material=material))


def test_events_tell_what_is_done(shown):
    folder, events = shown
    trained = [event for event in events if event.stage == "train"]
    assert trained[-1].done == trained[-1].total == 2
    assert {event.message for event in trained} == {"anna (person)"}
    assert [event.message.split(" merged")[0] for event in events if event.stage == "merge"] == [
        "3 orthogonal concepts", "3 lora concepts",
    ]  # fmt: skip
    assert "retention of orthogonal: alignment" in [e.message for e in events if e.stage == "measure"][0]
    assert events[-1].message == str(folder / "demo" / "index.html")


def test_the_page_is_complete_and_its_pictures_are_there(shown):
    folder = shown[0] / "demo"
    page = Page((folder / "index.html").read_text())
    assert page.depth == 0
    assert len(page.pictures) == 3 * 4 * 2 + 2  # concepts x columns x shown, and one combination by two methods
    for source in page.pictures:
        assert not source.startswith(("/", "http"))
        with Image.open(folder / source) as picture:
            assert picture.size == (32, 32)
    for words in ("anna", "trained here", "<anna> person in <boro> dog", "3 concepts, trained apart", "→"):
        assert words in page.text
    assert page.text.count("trained here") == 1


def test_numbers_are_in_the_json(shown):
    values = json.loads((shown[0] / "demo" / "demo.json").read_text())
    assert values["live"] == ["anna"]
    assert [row["variant"] for row in values["retention"]] == ["orthogonal", "lora"]
    assert values["retention"][0]["alignment_retention"]["value"] > 0
    assert all(seconds > 0 for seconds in values["seconds"].values())


def test_the_sheet_has_a_cell_for_every_concept(shown):
    with Image.open(shown[0] / "demo" / "gallery_sheet.png") as sheet:
        assert sheet.width > 2 * 4 * 112
        assert sheet.height > 3 * 112


def test_a_second_run_only_writes_the_page(shown, material):
    folder = shown[0]
    (folder / "demo" / "index.html").unlink()
    events = list(run_demo(folder / "demo", work=folder / "work", settings=SETTINGS, material=material))
    assert [event.stage for event in events] == ["merge", "merge", "measure", "report"]
    assert (folder / "demo" / "index.html").is_file()


def test_live_concepts_are_trained_as_their_shipped_file_says(material, shown):
    shipped = read_manifest(material.shipped("anna", "orthogonal"))
    (live,) = (shown[0] / "work").rglob("anna.safetensors")
    assert training_of(read_manifest(live)) == training_of(shipped)
    assert read_manifest(live).content_hash == shipped.content_hash  # the same pictures, options and seed


def test_an_unknown_live_concept_is_refused(material, tmp_path):
    with pytest.raises(ConfigurationError, match="live concept is 'bob'; allowed: anna, rex, boro"):
        list(run_demo(tmp_path, work=tmp_path, settings=replace(SETTINGS, live=("bob",)), material=material))


def test_a_missing_shipped_file_is_named(material, tmp_path):
    broken = replace(material, shipped=lambda name, method: tmp_path / f"{name}-{method}.safetensors")
    with pytest.raises(ConceptFileError, match=r"anna-orthogonal.safetensors"):
        list(run_demo(tmp_path, work=tmp_path, settings=SETTINGS, material=broken))


def test_combinations_take_turns_and_leave_out_what_is_not_there():
    triggers = {"person": ["<a> person", "<b> person"], "scene": ["<c> place"], "style": []}
    templates = ("{person} in {scene}", "{person}, {style}", "{person} in a forest", "{person} at {scene}")
    assert combine_prompts(templates, triggers) == (
        "<a> person in <c> place", "<a> person in a forest", "<b> person at <c> place",
    )  # fmt: skip
