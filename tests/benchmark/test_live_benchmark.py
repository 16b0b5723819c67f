"""The benchmark of threads that switch and draw on one base."""

import json

import pytest

from benchmarks import live
from orthoplex import vignette
from orthoplex.concepts import load_concept
from orthoplex.models import load_base

ANNA = load_concept(vignette.concept_file("anna", method="orthogonal"))


def test_growth_is_the_slope_after_the_first_third():
    memory = [(0.0, 0), (60.0, 500), (120.0, 700), (180.0, 900)]
    assert live.growth(memory) == pytest.approx(200)
    assert live.growth(memory[:1]) is None


@pytest.mark.slow
def test_every_picture_is_compared_and_the_report_is_whole(tmp_path):
    output = tmp_path / "live.json"
    sizes = ["--seconds", "2", "--threads", "3", "--sets", "3", "--live", "1", "--reading", "0.5"]
    live.main([*sizes, "--output", str(output)])
    report = json.loads(output.read_text())
    assert report["wrong"] == 0 and report["outcomes"]["asked without the lock"] > 0
    assert report["pictures"] == report["outcomes"]["right"] == report["switches"] > 0
    assert report["pictures_that_differ"] == 3 and len(report["resident_bytes"]) >= 3
    assert report["live"] == {"pictures": 1, "changed_before_the_last_step": 1, "sets_as_asked": 1, "errors": []}


@pytest.mark.slow
def test_a_picture_of_another_set_is_wrong_and_an_error_is_an_outcome():
    base, pool = load_base("vignette"), [({"anna": 1.0}, f"a photo of {ANNA.manifest.trigger}")]
    (expected,) = live.fresh_pictures({"anna": ANNA}, pool)
    with base.blend([ANNA], algorithm="sum") as blend:
        weaker = [({"anna": 0.5}, pool[0][1])]
        outcomes = live.run(live.Scene(base, blend, ["anna"], weaker, [expected]), 0.5, 1, 1.0).outcomes
        assert "wrong" in outcomes and "right" not in outcomes
    outcomes = live.run(live.Scene(base, blend, ["anna"], pool, [expected]), 0.2, 1, 1.0).outcomes
    assert outcomes and all(outcome.startswith("error: ConfigurationError: concept 'anna'") for outcome in outcomes)
