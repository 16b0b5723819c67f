"""The heads that ship with the package: how they are fitted, and what is noted about them."""

import json

import pytest
import torch
from PIL import Image

from orthoplex import vignette
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.evaluation import LinearHead, load_head
from pretraining import heads, real_pictures
from pretraining.compose import Box, Factors, Thing
from pretraining.heads import FACTORS, fit_heads, named, report
from pretraining.readers import PLAIN, Features
from pretraining.seeds import HEADS
from pretraining.vocabulary import SCENES, STYLES

TWO_SCENES, TWO_STYLES = ("a cave", "a beach"), ("cubist painting", None)
THING = Thing(Box(0, 64, 64), subject="fox", family="noto")


def rows_of(count):
    return [
        Factors((THING,) * (number % 2), TWO_SCENES[number % 2], TWO_STYLES[number // 2 % 2]) for number in range(count)
    ]


def features_of(rows, seed=0):
    """Scene and style have directions of their own."""
    places = [[TWO_SCENES.index(row.scene), 2 + TWO_STYLES.index(row.style)] for row in rows]
    whole = torch.zeros(len(rows), 4).scatter(1, torch.tensor(places), 1.0)
    return whole + 0.05 * torch.randn(whole.shape, generator=torch.Generator().manual_seed(seed))


def test_all_pictures_are_read_for_scene_and_style():
    rows = rows_of(40)
    assert named("style", rows)[:4] == ["cubist painting", "cubist painting", PLAIN, PLAIN]
    fitted = fit_heads(Features(features_of(rows), torch.zeros(2, 0, 4)), rows, "test")
    assert {factor: head.classes for factor, head in fitted.items()} == {
        "scene": ("a beach", "a cave"),
        "style": ("cubist painting", PLAIN),
    }
    found = report(fitted, features_of(rows, seed=1), rows)
    for factor in FACTORS:
        assert found[factor]["all"]["accuracy"] == 1.0
        assert [found[factor][kind]["pictures"] for kind in ("all", "painted", "not_painted")] == [40, 20, 20]


def test_painted_pictures_are_told_apart():
    rows = rows_of(8)
    blind = LinearHead(torch.zeros(2, 4), torch.tensor([1.0, 0.0]), ("cubist painting", PLAIN), "test")
    found = report({"style": blind}, features_of(rows), rows)["style"]
    assert found["classes"] == 2
    assert [found[kind]["accuracy"] for kind in ("all", "painted", "not_painted")] == [0.5, 1.0, 0.0]


def test_the_command_measures_the_files_it_wrote(tmp_path, monkeypatch, capsys):
    """On pictures that are one colour each, so that nothing has to be composed."""
    colours = {"a cave": "black", "a beach": "yellow"}

    def compose(seed, index, **options):
        assert seed == HEADS and options == {"styled": 1 / 3, "usual": False}
        row = rows_of(index + 1)[-1]
        return Image.new("RGB", (128, 128), colours[row.scene]), row

    def real_features(work, count, encoder):
        rows = rows_of(count)
        pictures = [Image.new("RGB", (128, 128), colours[row.scene]) for row in rows]
        return Features(encoder.encode(pictures), torch.zeros(2, 0, 1280)), rows

    monkeypatch.setattr(real_pictures, "compose", compose)
    monkeypatch.setattr(heads, "real_features", real_features)
    arguments = ["--fit", "20", "--unseen", "8", "--output", str(tmp_path / "heads"), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["heads", *arguments])
    heads.main()
    values = json.loads((tmp_path / "heads.json").read_text())
    assert values["unseen"]["scene"]["all"] == {"accuracy": 1.0, "low": 1.0, "high": 1.0, "pictures": 8}
    assert (values["fitted_on"], values["painted_among_them"]) == (20, 10)
    assert load_head(tmp_path / "heads" / "scene.safetensors").encoder == values["encoder"]
    page = (tmp_path / "heads.md").read_text()
    assert "| scene | 2 | 1.000 (1.000–1.000) of 8 |" in page
    assert page in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "classes"), [("scene", {*SCENES}), ("style", {*STYLES, PLAIN})])
def test_the_shipped_heads_know_the_vocabulary(factor, classes):
    head = load_head(vignette.head_file(factor))
    assert {*head.classes} == classes
    assert head.encoder == EncoderSettings().build().name
