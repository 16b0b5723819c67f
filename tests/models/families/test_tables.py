"""The layer tables are those of the networks, and every family has one."""

import pytest

from orthoplex.concepts.layer_table import layer_table
from orthoplex.models import FAMILIES, load_base
from orthoplex.models.families import family_of
from orthoplex.models.families.tables import FOLDER, table_text


@pytest.mark.parametrize("pipeline_class", FAMILIES)
def test_a_table_is_what_the_command_writes(pipeline_class):
    path = FOLDER / f"{FAMILIES[pipeline_class].module}.json"
    assert path.read_text("utf-8") == table_text(family_of(pipeline_class)), (
        "python -m orthoplex.models.families.tables"
    )


def test_every_table_belongs_to_a_family():
    assert {path.stem for path in FOLDER.glob("*.json")} == {row.module for row in FAMILIES.values()}


def test_a_table_has_the_layers_of_its_base():
    family = load_base("vignette").family
    shapes = layer_table("vignette").versions["vignette"]
    linears = family.every_layer()
    assert {name: tuple(linear.weight.shape) for name, linear in linears.items()}.items() <= shapes.items()
    assert {len(shapes[name]) for name in shapes.keys() - linears.keys()} == {4}, "convolutions"


@pytest.mark.parametrize(
    ("version", "width", "num_layers"), [("sd1", 768, 128), ("sd2", 1024, 128), ("sd2-v", 1024, 128)]
)
def test_published_versions(version, width, num_layers):
    table = layer_table(version)
    shapes = table.versions[version]
    assert {shapes[layer][1] for layer in shapes if table.reads_features(layer)} == {width}
    assert sum(".attn" in layer for layer in shapes) == num_layers
