"""Two files of every style of every version, read, merged, written and read again."""

import math

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange import STYLES, LoraFile, read_lora, write_lora
from orthoplex.concepts.exchange.names import versions
from orthoplex.concepts.layer_table import layer_tables
from orthoplex.merging import Strengths, merge_files

CELLS = [(family, version, style) for family, version in versions() for style in STYLES]
LARGEST = 4096 * 4096


def small_layers(family: str, version: str, style: str) -> list[str]:
    """Three layers that the style names, of a size that a test can multiply out."""
    table = layer_tables()[family]
    shapes = table.versions[version]
    modules = [module for _, module in STYLES[style].written_names(table, version)]
    named = [layer for module in modules for layer in module.layers if layer in shapes]
    small = [layer for layer in named if math.prod(shapes[layer]) <= LARGEST]
    return list(dict.fromkeys(small[place * (len(small) - 1) // 2] for place in range(3)))


@pytest.mark.parametrize(("family", "version", "style"), CELLS)
def test_merges(tmp_path, family, version, style):
    shapes = layer_tables()[family].versions[version]
    generator = torch.Generator().manual_seed(0)
    layers = small_layers(family, version, style)
    windows = {layer: shapes[layer][2:] for layer in layers if len(shapes[layer]) == 4}
    files, wanted = [], {}
    for name, rank, strength in (("a", 1, 0.5), ("b", 2, -2.0)):
        changes = {
            layer: LowRank(
                torch.randn(shapes[layer][0], rank, generator=generator).half(),
                torch.randn(rank, math.prod(shapes[layer][1:]), generator=generator).half(),
            )
            for layer in layers
        }
        path = tmp_path / f"{name}.safetensors"
        write_lora(LoraFile(name, style, family, version, changes, windows), path, style=style)
        files.append((read_lora(path, family=version), Strengths(strength)))
        for layer, change in changes.items():
            rows = change.up[:8].double() @ change.down.double()
            wanted[layer] = wanted.get(layer, 0) + strength * rows
    write_lora(merge_files(files).lora, tmp_path / "ab.safetensors", style=style)
    merged = read_lora(tmp_path / "ab.safetensors", family=version)
    for layer in layers:
        change = merged.layers[layer]
        assert change.shape == (shapes[layer][0], math.prod(shapes[layer][1:]))
        torch.testing.assert_close(change.up[:8].double() @ change.down.double(), wanted[layer], rtol=1e-9, atol=1e-9)
