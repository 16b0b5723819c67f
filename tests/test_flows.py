"""The drawings of docs/architecture.md name what the package has, and are those that their script draws."""

import importlib.util
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("flows", ROOT / ".ci" / "flows.py")
assert SPEC is not None and SPEC.loader is not None
flows = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(flows)
STEPS = [step for flow in flows.FLOWS for step in flow.steps]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.does)
def test_every_step_is_in_the_package(step):
    module, _, name = step.does.partition(":")
    thing = getattr(import_module(f"orthoplex.{module}"), name)
    assert thing.__module__ == f"orthoplex.{module}" and module.split(".")[0] == step.room


@pytest.mark.parametrize("flow", flows.FLOWS, ids=lambda flow: flow.name)
def test_the_drawing_is_the_scripts(flow):
    assert (ROOT / "docs" / "images" / f"{flow.name}.svg").read_text(encoding="utf-8") == flows.drawing(flow)


def test_the_page_shows_both():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert all(f"images/{flow.name}.svg" in page for flow in flows.FLOWS)
