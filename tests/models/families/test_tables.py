"""The layer tables are those of the networks, and every family has one."""

import json

import pytest

from orthoplex.concepts.layer_table import LayerTable, layer_table, layer_tables
from orthoplex.models import FAMILIES, load_base
from orthoplex.models.families import family_of
from orthoplex.models.families.tables import FOLDER, grouped, layouts, main, table_text


def check(family: str) -> None:
    text = (FOLDER / f"{family}.json").read_text("utf-8")
    assert text == table_text(layouts()[family]), "python -m orthoplex.models.families.tables"


def test_a_table_is_what_the_command_writes():
    check("flux2")


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(layer_tables()))
def test_every_table_is_what_the_command_writes(family):
    check(family)


def test_the_command_writes_the_tables_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr("orthoplex.models.families.tables.FOLDER", tmp_path)
    main(["unheard-of"])
    assert not list(tmp_path.iterdir())


def test_every_table_belongs_to_a_family_and_every_family_has_one():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(layouts()) == set(layer_tables())
    known = {id(layout) for layout in layouts().values()}
    assert all(id(family_of(name).layout) in known for name in FAMILIES)


@pytest.mark.parametrize(
    ("entries", "groups"),
    [
        ({"a.0.b": [1], "a.0.c": [2], "a.1.b": [1], "a.1.c": [2]}, {"a.{0-1}": {"b": [1], "c": [2]}}),
        ({"a.0.b": [1], "a.1.b": [2], "a.2.b": [2]}, {"a": {"0.b": [1], "{1-2}.b": [2]}}),
        ({"a.0": [1], "a.2": [1]}, {"a": {"0": [1], "2": [1]}}),
        ({"a.9.0.c": [1], "a.9.1.c": [1], "a.10.0.c": [1], "a.10.1.c": [1]}, {"a.{9-10}": {"{0-1}.c": [1]}}),
        ({"a.0.b": ["x.0.y.0"], "a.1.b": ["x.1.y.0"]}, {"a.{0-1}.b": ["x.{}.y.0"]}),
        ({"a.0": ["x.1"], "a.1": ["x.2"]}, {"a": {"0": ["x.1"], "1": ["x.2"]}}),
        ({"a.0": ["x.0", "y.0"], "a.1": ["x.1"]}, {"a": {"0": ["x.0", "y.0"], "1": ["x.1"]}}),
        ({"a.0.c": [1], "a.1.b": [1]}, {"a": {"0.c": [1], "1.b": [1]}}),
        ({"a.0": [1], "a.1.b": [1]}, {"a": {"0": [1], "1.b": [1]}}),
    ],
)
def test_equal_blocks_are_written_once_and_read_as_they_were(entries, groups):
    assert json.loads(json.dumps(grouped(entries))) == groups
    values = {"components": {}, "rules": [], "versions": {"one": groups}}
    if "x" in str(entries):
        values = {**values, "versions": {"one": {}}, "original_modules": {"one": groups}}
    table = LayerTable.from_json("some", values)
    read = {name: module.layers for name, module in table.original_modules("one").items()} or table.weights["one"]
    assert list(read.items()) == [(name, tuple(entry)) for name, entry in entries.items()]


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
