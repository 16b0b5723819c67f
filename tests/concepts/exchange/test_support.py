"""Every style of every version, written and read back; ``support_table`` is the table of it."""

import math

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange import STYLES, LoraFile, read_lora, write_lora
from orthoplex.concepts.exchange.names import versions
from orthoplex.concepts.layer_table import layer_tables

CELLS = [(family, version, style) for family, version in versions() for style in STYLES]


def some_layers(family: str, version: str, style: str) -> list[str]:
    """The first layer of every component, and two further ones, as far as the style names them."""
    table = layer_tables()[family]
    written = (layer for _, module in STYLES[style].written_names(table, version) for layer in module.layers)
    named = [layer for layer in written if layer in table.versions[version]]
    by_component = {layer.partition(".")[0]: layer for layer in reversed(named)}
    return list(dict.fromkeys((*by_component.values(), named[len(named) // 2], named[-1])))


@pytest.mark.parametrize(("family", "version", "style"), CELLS)
def test_reads_and_writes(tmp_path, family, version, style):
    shapes = layer_tables()[family].versions[version]
    layers = {
        layer: LowRank(
            torch.full((shapes[layer][0], 1), 0.5 + i).half(), torch.ones(1, math.prod(shapes[layer][1:])).half()
        )
        for i, layer in enumerate(some_layers(family, version, style))
    }
    windows = {layer: shapes[layer][2:] for layer in layers if len(shapes[layer]) == 4}
    lora = LoraFile("a", style, family, version, layers, windows)
    write_lora(lora, tmp_path / "a.safetensors", style=style)
    again = read_lora(tmp_path / "a.safetensors", family=version)
    assert (again.family, again.version, again.style) == (family, version, style)
    for layer, change in layers.items():
        own = again.layers[layer]
        directions = own.down.any(dim=1) & own.up.any(dim=0)
        assert torch.equal(own.up[:, directions].sum(1), change.up[:, 0]) and own.shape == change.shape


def support_table() -> str:
    """Versions by styles; each cell is the test that holds it."""
    lines = ["| version | " + " | ".join(STYLES) + " |", "|---" * (len(STYLES) + 1) + "|"]
    for family, version in versions():
        cells = [f"`test_reads_and_writes[{family}-{version}-{style}]`" for style in STYLES]
        lines.append(f"| {version} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_has_every_cell():
    assert support_table().count("test_reads_and_writes") == len(CELLS)
