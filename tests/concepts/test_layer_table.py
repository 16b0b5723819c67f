"""What layers see, by family, without torch."""

import subprocess
import sys

import pytest

from orthoplex.concepts.layer_table import LayerTable, OriginalModule, layer_table, layer_tables

TABLE = LayerTable.from_json(
    "some",
    {
        "components": {"net": "denoiser", "reader": "text encoder"},
        "rules": [["reader.*", "text"], ["net.*.keys", "text"], ["net.time.*", "time"], ["net.*", "picture"]],
        "versions": {"one": {"net.a.keys": [2, 3], "net.b": [2, 3, 1, 1]}, "two": "one"},
        "encoder_tags": {"reader": {"kohya": "te1", "comfy": "clip_l"}},
        "kohya_names": "original",
        "original_modules": {
            "one": {"blocks.{3-4}": {"qkv": ["net.{}.q", "net.{}.k"], "out": ["net.{}.o.0"]}, "last": ["net.b"]},
            "two": "one",
        },
        "swapped_halves": ["last"],
    },
)


@pytest.mark.parametrize(
    ("layer", "sees", "reads"),
    [
        ("net.a.keys", "text", True),
        ("net.a.keys.more", "picture", False),
        ("net.time.a", "time", False),
        ("reader.a", "text", False),
        ("other.a", "both", False),
        ("", "both", False),
    ],
)
def test_the_first_rule_that_fits_counts(layer, sees, reads):
    assert TABLE.sees(layer) == sees and TABLE.reads_features(layer) is reads


def test_a_version_may_equal_another():
    assert TABLE.versions["two"] == TABLE.versions["one"] == {"net.a.keys": (2, 3), "net.b": (2, 3, 1, 1)}


def test_original_modules_are_those_of_every_block():
    fused = {f"blocks.{i}.qkv": OriginalModule((f"net.{i}.q", f"net.{i}.k")) for i in (3, 4)}
    single = {f"blocks.{i}.out": OriginalModule((f"net.{i}.o.0",)) for i in (3, 4)}
    assert (
        TABLE.original_modules("two")
        is TABLE.original_modules("one")
        == {
            **fused,
            **single,
            "last": OriginalModule(("net.b",), swapped_halves=True),
        }
    )
    assert TABLE.original_modules("three") == {}
    assert TABLE.family == "some" and TABLE.kohya_names == "original"
    assert TABLE.encoder_tags["reader"]["kohya"] == "te1"


def test_versions_are_counted_and_listed_without_their_layers():
    assert list(TABLE.versions) == ["one", "two"] and len(TABLE.versions) == 2 and "three" not in TABLE.versions


def test_every_version_is_in_one_table():
    versions = [version for table in layer_tables().values() for version in table.versions]
    assert len(versions) == len(set(versions))
    assert all(layer_table(version) is table for table in layer_tables().values() for version in table.versions)
    assert all(family == table.family for family, table in layer_tables().items())


def test_versions_lead_to_their_table():
    assert layer_table("sd2-v") is layer_table("sd2") is layer_table("vignette") is not None
    assert layer_table("unheard-of") is None


def test_it_needs_no_torch():
    code = (
        "import sys; from orthoplex.concepts.layer_table import layer_table; "
        "print(len(layer_table('sd1').versions['sd1']) > 300, 'torch' in sys.modules, 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
