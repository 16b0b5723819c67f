"""Curves and maps are well-formed, say what they show, and are the same for the same numbers."""

import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from orthoplex.benchmark.plots import bars, check_charts, curves, dots, font_file, heat_maps, scatter
from orthoplex.errors import MissingExtraError
from orthoplex.evaluation import Interval


def texts(svg):
    return " ".join(
        "".join(item.itertext()) for item in ElementTree.fromstring(svg).iter() if item.tag.endswith("text")
    )


def test_bars():
    groups = {"slots": {"identity": Interval(1.0, 0.9, 1.0)}, "costs $a^$": {"identity": Interval(-0.25, -0.5, 0.2)}}
    svg = bars(groups, title="retention", reference=1.0)
    found = texts(svg)
    for word in ("retention", "identity", "slots", "costs $a^$", "1.00", "-0.25"):
        assert word in found
    assert svg == bars(groups, title="retention", reference=1.0)
    assert "none" in texts(bars({"v": {}}, title="none"))


def test_curves_show_what_is_below_nothing():
    below = {3: Interval(-0.4, -0.5, -0.3), 15: Interval(-0.2, -0.3, -0.1)}
    assert "−0.5" in texts(curves({"gain": {"slots": below}}, title="t"))  # a tick of the axis


def test_curves():
    points = {3: Interval(0.9, 0.8, 1.0), 15: Interval(0.5, 0.4, 0.6)}
    panels = {"identity": {"slots": points, "lora": points}, "alignment": {"slots": points}}
    svg = curves(panels, title="how many?", capacity=12)
    found = texts(svg)
    for word in ("how many?", "identity, merged / alone", "slots", "lora", "15", "exact slots end"):
        assert word in found
    assert svg == curves(panels, title="how many?", capacity=12)
    assert "exact slots end" not in texts(curves(panels, title="t"))


def test_heat_maps():
    panels = {f"person: v{number}": (("anna",), ("anna", "rex"), torch.tensor([[0.75, 0.25]])) for number in range(5)}
    found = texts(heat_maps(panels, title="bleed"))
    for word in ("bleed", "person: v4", "anna", "75", "25"):
        assert word in found


def test_dots():
    panels = {"others": {"slots": {"unet.a": 0.5, "unet.b": 0.25}, "lora": {"unet.b": 2.0}}, "loss": {"all": {}}}
    svg = dots(panels, title="crosstalk")
    found = texts(svg)
    for word in ("crosstalk", "others", "loss", "slots", "lora", "all", "unet.a", "unet.b"):
        assert word in found
    assert svg == dots(panels, title="crosstalk")


def test_scatter():
    point = (0.4, Interval(0.9, 0.8, 1.0))
    panels = {"identity": {"slots": point, "lora": (2.0, Interval(0.2, 0.2, 0.2))}, "alignment": {"slots": point}}
    svg = scatter(panels, across="crosstalk", title="does it tell?")
    found = texts(svg)
    for word in ("does it tell?", "identity", "alignment", "crosstalk", "slots", "lora"):
        assert word in found
    assert svg == scatter(panels, across="crosstalk", title="does it tell?")


def test_a_variant_has_one_colour_in_all_panels_and_any_name():
    points = {3: Interval(0.9, 0.8, 1.0), 15: Interval(0.5, 0.4, 0.6)}
    panels = {"identity": {"b costs $a^$": points}, "alignment": {"a": points, "b costs $a^$": points}}
    svg = curves(panels, title="t")
    assert "b costs $a^$" in texts(svg) and texts(svg).count("b costs $a^$") == 1
    strokes = [part.split("stroke: ")[1][:7] for part in svg.split("style=") if "stroke: #" in part[:80]]
    lines = [stroke for stroke in strokes if stroke in ("#1f77b4", "#ff7f0e")]
    assert lines.count("#1f77b4") > lines.count("#ff7f0e") > 0  # b comes first and is in both panels


@pytest.mark.parametrize("draw", [check_charts, font_file, lambda: bars({"v": {}}, title="none")])
def test_without_matplotlib_the_extra_is_named(monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib.*: pip install 'orthoplex\[charts\]'"):
        draw()
