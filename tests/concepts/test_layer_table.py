"""What layers see, by family, without torch."""

import subprocess
import sys

import pytest

from orthoplex.concepts.layer_table import LayerTable, layer_table

TABLE = LayerTable.from_json(
    {
        "components": {"net": "denoiser", "reader": "text encoder"},
        "rules": [["reader.*", "text"], ["net.*.keys", "text"], ["net.time.*", "time"], ["net.*", "picture"]],
        "versions": {"one": {"net.a.keys": [2, 3], "net.b": [2, 3, 1, 1]}, "two": "one"},
    }
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
