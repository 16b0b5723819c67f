"""What experiments share is read from the file they name."""

import re

import pytest

from orthoplex.benchmark.experiment_file import read_tables
from orthoplex.errors import ConfigurationError

COMMON = """
resolution = 32
[training]
steps = 2
rank = 4
[methods]
ours = { method = "orthogonal", erasure = 3.0 }
[[collections]]
index = "../pool/concepts.json"
"""
OWN = """
common = "shared/common.toml"
resolution = 64
[training]
rank = 2
[methods]
lora = { method = "lora" }
[[variants]]
name = "a"
training = "ours"
[[variants]]
name = "b"
training = { like = "ours", erasure = 1.0 }
[[variants]]
name = "c"
training = { like = "lora" }
[[variants]]
name = "d"
training = { steps = 9 }
"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "shared").mkdir()

    def reading(own=OWN, common=COMMON):
        (tmp_path / "shared" / "common.toml").write_text(common)
        (tmp_path / "own.toml").write_text(own)
        return read_tables(tmp_path / "own.toml")

    return reading


def test_a_file_stands_before_what_is_common(read, tmp_path):
    values = read()
    assert values.keys() == {"resolution", "training", "collections", "variants"}
    assert values["resolution"] == 64 and values["training"] == {"steps": 2, "rank": 2}
    assert values["collections"] == [{"index": str(tmp_path / "shared" / "../pool/concepts.json")}]
    assert [row["training"] for row in values["variants"]] == [
        {"method": "orthogonal", "erasure": 3.0},
        {"method": "orthogonal", "erasure": 1.0},
        {"method": "lora"},
        {"steps": 9},
    ]


def test_a_common_file_may_name_another(read, tmp_path):
    (tmp_path / "shared" / "deeper.toml").write_text('base = "there"\n[training]\nsteps = 5\nslots = 3\n')
    values = read(common='common = "deeper.toml"\n' + COMMON)
    assert values["base"] == "there" and values["training"] == {"steps": 2, "slots": 3, "rank": 2}


@pytest.mark.parametrize(
    ("own", "common", "message"),
    [
        (OWN.replace('"ours"', '"hers"', 1), COMMON, "variant 'a': training is like 'hers'; allowed: 'ours', 'lora'"),
        (
            OWN.replace('"shared/common.toml"', "5"),
            COMMON,
            "own.toml: common is 5; allowed are texts that are",
        ),
        (OWN, "common = 5\n" + COMMON, "common.toml: common is 5; allowed are texts that are not blank"),
        (OWN.replace('"ours"', "[1]", 2).replace("training = [1]", "training = {}"), COMMON, "training like is [1]"),
        (
            OWN,
            COMMON.replace("method =", "like ="),
            "method 'ours' is like another; allowed are training options",
        ),
        (OWN.replace("lora =", "ours ="), COMMON, "own.toml: method 'ours' is one of common.toml; allowed is another"),
        (OWN.replace("common.toml", "no.toml"), COMMON, "no.toml cannot be read"),
        (OWN, 'common = "../own.toml"\n' + COMMON, "own.toml, which is being read; allowed is another file"),
        ('common = "\\u0000"', COMMON, "cannot be read"),
        (
            OWN,
            COMMON.replace('{ method = "orthogonal", erasure = 3.0 }', "5"),
            "method 'ours' is 5; allowed are",
        ),
        ('[[variants]]\nname = "a"\ntraining = "ours"', "", "allowed: nothing without a table [methods]"),
    ],
)
def test_what_cannot_be_shared_is_refused(read, own, common, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read(own, common)
