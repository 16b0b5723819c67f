"""The comparison of two bases by the merge of twelve."""

import json

import pytest

from pretraining.customization import FIRST, alone, table


def result(single: float) -> dict:
    number = {"value": single, "low": 0.1, "high": 0.9}
    keys = ("alignment_retention", "recognised_retention", "single_recognised", "single_identity")
    rows = [
        {"variant": "ours", "concept": "anna", "single_alignment": value, "base_alignment": 0.2}
        for value in (single, single + 0.1)
    ]
    return {
        "ceilings": {"anna": {"alignment": 0.5}},
        "summary": [{"variant": "ours", "identity_retention": None} | dict.fromkeys(keys, number)],
        "measurements": [*rows, {**rows[0], "variant": "theirs", "single_alignment": 9.0}],
    }


def test_alignment_alone_is_a_share_of_what_real_pictures_reach() -> None:
    assert alone(result(0.3), "ours") == {"anna": pytest.approx((0.7, 0.4))}


def test_both_results_stand_side_by_side() -> None:
    lines = table(result(0.3), result(0.5)).splitlines()
    assert (
        lines[2]
        == "| ours | before | 0.300 (0.100–0.900) | 0.300 (0.100–0.900) |  | "
        + " | ".join(["0.300 (0.100–0.900)"] * 2)
        + " |"
    )
    assert "| anna | 0.700 (0.400) | 1.100 (0.400) |" in lines
    assert lines[-1] == "| mean | 0.700 | 1.100 |"


def test_only_what_stands_in_both_results_is_compared() -> None:
    more, other = result(0.5), result(0.5)
    more["ceilings"]["rex"] = {"alignment": 0.5}
    more["measurements"] += [{**row, "concept": "rex"} for row in more["measurements"]]
    assert table(result(0.3), more) == table(result(0.3), result(0.5))
    other["summary"][0]["variant"] = "another"
    with pytest.raises(ValueError, match="no variant stands in both results; ours before, another now"):
        table(result(0.3), other)
    with pytest.raises(ValueError, match="no concept stands in both results; anna before, tom now"):
        table(result(0.3), json.loads(json.dumps(result(0.5)).replace("anna", "tom")))


def test_the_first_version_is_kept() -> None:
    kept = json.loads(FIRST.read_text())
    assert len(alone(kept, kept["summary"][0]["variant"])) == 12
