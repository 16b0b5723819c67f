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


def some_numbers(*shape: int, seed: int) -> torch.Tensor:
    """Small whole numbers, so that products and their sums are exact."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).half()


@pytest.mark.parametrize(("family", "version", "style"), CELLS)
def test_reads_and_writes(tmp_path, family, version, style):
    shapes = layer_tables()[family].versions[version]
    layers = {
        layer: LowRank(
            some_numbers(shapes[layer][0], 2, seed=i), some_numbers(2, math.prod(shapes[layer][1:]), seed=i + 100)
        )
        for i, layer in enumerate(some_layers(family, version, style))
    }
    windows = {layer: shapes[layer][2:] for layer in layers if len(shapes[layer]) == 4}
    lora = LoraFile("a", style, family, version, layers, windows)
    write_lora(lora, tmp_path / "a.safetensors", style=style)
    again = read_lora(tmp_path / "a.safetensors", family=version)
    assert (again.family, again.version, again.style) == (family, version, style)
    for layer, change in layers.items():
        own, inputs = again.layers[layer], some_numbers(change.shape[1], 2, seed=7).float()
        outputs = change.up.float() @ (change.down.float() @ inputs)
        assert own.shape == change.shape and torch.equal(own.up.float() @ (own.down.float() @ inputs), outputs)


def support_table() -> str:
    """Versions by styles; each cell is the test that holds it."""
    lines = ["| version | " + " | ".join(STYLES) + " |", "|---" * (len(STYLES) + 1) + "|"]
    for family, version in versions():
        cells = [f"`test_reads_and_writes[{family}-{version}-{style}]`" for style in STYLES]
        lines.append(f"| {version} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_has_every_cell():
    assert support_table().count("test_reads_and_writes") == len(CELLS)
