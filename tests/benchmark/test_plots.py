"""Curves and maps are well-formed, say what they show, and are the same for the same numbers."""

import xml.etree.ElementTree as ElementTree

import torch

from orthoplex.benchmark.plots import curves, heat_maps
from orthoplex.evaluation import Interval


def texts(svg):
    return " ".join(
        "".join(item.itertext()) for item in ElementTree.fromstring(svg).iter() if item.tag.endswith("text")
    )


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
    panels = {f"person: v{number}": (("anna", "rex"), torch.tensor([[0.75, 0.25], [0.0, 1.0]])) for number in range(5)}
    found = texts(heat_maps(panels, title="bleed"))
    for word in ("bleed", "person: v4", "anna", "75", "25", "100"):
        assert word in found
