"""What steps cost, on a pico pipeline."""

import json

import pytest

from benchmarks import step_cost
from benchmarks.step_cost import StepSettings
from orthoplex.errors import ConfigurationError


def test_every_contestant_takes_a_step_and_predicts_the_same(pico_folder, tmp_path):
    output = tmp_path / "step-cost.json"
    arguments = ["--concepts", "1", "3", "--rank", "2", "--rounds", "2", "--dtypes", "float32"]
    step_cost.main(["--targets", str(pico_folder), *arguments, "--output", str(output)])
    (row,) = json.loads(output.read_text())["steps"]
    beside = ["unmerged 1", "unmerged 3", "PEFT 1", "PEFT 3", "four rows of four sets"]
    assert sorted(row["seconds"]) == sorted(["base", "merged", "base, four rows", *beside])
    assert all(len(times) == 2 and min(times) > 0 for times in row["rounds"].values())
    assert row["to_base"]["four rows of four sets"]["fastest"] == pytest.approx(
        row["seconds"]["four rows of four sets"]["fastest"] / row["seconds"]["base, four rows"]["fastest"]
    )
    differences = row["largest_difference_from_merged"]
    assert sorted(differences) == sorted(beside)
    assert max(differences.values()) < 1e-3
    assert row["concepts_of_rows"] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concepts": ()}, "step cost concepts is 0; allowed: 1 or more"),
        ({"rank": 0}, "step cost rank is 0; allowed: 1 or more"),
        ({"rounds": 0}, "step cost rounds is 0; allowed: 1 or more"),
        ({"pixels": 8}, "step cost pixels is 8; allowed: 64 or more"),
        ({"dtype": "int8"}, "step cost dtype is 'int8'; allowed: float32, bfloat16"),
    ],
)
def test_settings_that_are_not_allowed(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        StepSettings("vignette", **arguments)
