"""The worked example of CONTRIBUTING.md is a method: it enters the registry by one line and keeps the laws."""

import re
from pathlib import Path

import pytest
import torch

from orthoplex.adapters import METHODS, AdapterConfig, create_adapter

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def build(monkeypatch):
    """Register the page's method for one test; return a function that builds it."""
    section = PAGE.read_text().partition("## Add a method\n")[2].partition("\n## ")[0]
    file_example, registry_line = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    methods: dict[str, type] = {}
    exec(file_example + registry_line, {"METHODS": methods})
    assert list(methods) == ["coordinate"]
    monkeypatch.setitem(METHODS, "coordinate", methods["coordinate"])

    def build_one(slot: int):
        config = AdapterConfig(method="coordinate", slot=slot)
        return create_adapter(config, layer="unet.to_k", out_features=8, in_features=32, concept_id="anna", seed=0)

    return build_one


def test_the_example_freezes_the_inputs_of_its_slot(build):
    assert build(3).down.nonzero().tolist() == [[0, 6], [1, 7]]
    assert [name for name, _ in build(3).named_parameters()] == ["up"]


def test_the_example_keeps_the_laws(build):
    adapter = build(3)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert adapter(x).abs().max() == 0
    torch.nn.init.ones_(adapter.up)
    torch.testing.assert_close(adapter(x), x @ adapter.delta().T)
    other = build(4)
    other.load_factors(adapter.factors())
    assert torch.equal(other.delta(), adapter.delta())
    assert (adapter.down @ build(5).down.T).abs().max() == 0
